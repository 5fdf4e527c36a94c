"""The synchronous client: every verb of the SDK, over one connection."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from torpor import bundles, config, units, wire
from torpor.connection import RETRY_PAUSES_S, Connection
from torpor.dataset_handle import Dataset
from torpor.errors import ApiError, ConfigurationError, Conflict, NotFound, Problem
from torpor.job_handle import Job
from torpor.models import Person, Resource
from torpor.workspace_handle import Workspace

if TYPE_CHECKING:
    import httpx

ID = re.compile(r"(ws|job|ds|src|ckp|imp|rd)-[0-9a-z]{20}")
JOB_NAME_LENGTH = 30
Refusal = TypeVar("Refusal", bound=ApiError)


class Client:
    """A client of one platform. Without arguments it is configured by the environment, in a workspace completely.

    ``url`` is the platform's address, ``token`` a JupyterHub token, ``env`` a name of the user's file; see ``torpor.config`` for
    which source wins. ``timeout_s`` is the longest silence of the platform, ``transport`` replaces the network (tests).
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        env: str | None = None,
        environ: Mapping[str, str] | None = None,
        transport: httpx.BaseTransport | None = None,
        timeout_s: float = 30.0,
        retry_pauses_s: Sequence[float] = RETRY_PAUSES_S,
    ) -> None:
        self.settings = config.resolve(
            url=url, token=token, env=env, environ=os.environ if environ is None else environ
        )
        self.settings.require()
        self.connection = Connection(
            self.settings.url.value,
            self.settings.token.value,
            transport=transport,
            timeout_s=timeout_s,
            retry_pauses_s=retry_pauses_s,
        )

    def me(self) -> Person:
        """Return who the token belongs to."""
        return Person.parse(self.connection.json(wire.me()))

    def health(self) -> Mapping[str, Any]:
        """Return the platform's version and the wire versions that it speaks."""
        answer: Mapping[str, Any] = self.connection.json(wire.health())
        return answer

    def dataset(self, name: str) -> Dataset:
        """Return the dataset with that id or ``tenant/name``; a bare name does where only one tenant has it. Raises NotFound."""
        if ID.fullmatch(name):
            return Dataset(self.connection, self._resource("datasets", name))
        if "/" in name:
            found = list(self.connection.items(wire.datasets(name=name), limit=1))
        else:
            found = [item for item in self.connection.items(wire.datasets(search=name)) if item["name"] == name]
        if len(found) > 1:
            names = ", ".join(f"{item['tenant']}/{name}" for item in found)
            raise _refusal(Conflict, 409, f"There are several datasets called '{name}'.", f"Name one of: {names}.")
        if not found:
            raise _missing("dataset", name, "torpor datasets list")
        return Dataset(self.connection, Resource.parse(found[0]))

    def datasets(
        self, *, tenant: str | None = None, search: str | None = None, limit: int | None = None
    ) -> list[Dataset]:
        """Return the datasets that one may see, of one tenant or with a word in them."""
        found = self.connection.items(wire.datasets(tenant=tenant, search=search), limit=limit)
        return [Dataset(self.connection, Resource.parse(item)) for item in found]

    def job(self, name: str) -> Job:
        """Return the job with that id, or the newest with that name. Raises NotFound."""
        if ID.fullmatch(name):
            return Job(self.connection, self._resource("jobs", name))
        for item in self.connection.items(wire.jobs()):
            if item["name"] == name:
                return Job(self.connection, Resource.parse(item))
        raise _missing("job", name, "torpor jobs list")

    def jobs(
        self,
        *,
        tenant: str | None = None,
        workspace: str | None = None,
        phase: str | None = None,
        limit: int | None = 50,
    ) -> list[Job]:
        """Return jobs, newest first; ``limit`` None returns all."""
        found = self.connection.items(wire.jobs(tenant=tenant, workspace=workspace, phase=phase), limit=limit)
        return [Job(self.connection, Resource.parse(item)) for item in found]

    def workspace(self, name: str | None = None) -> Workspace:
        """Return the workspace with that id or name; without one, that in which this code runs. Raises NotFound."""
        name = name or self.settings.workspace
        if not name:
            raise ConfigurationError(
                "This code does not run in a workspace.", next_step="Name one: torpor.workspace('…')."
            )
        if ID.fullmatch(name):
            return Workspace(self.connection, self._resource("workspaces", name))
        for item in self.connection.items(wire.workspaces()):
            if item["name"] == name:
                return Workspace(self.connection, Resource.parse(item))
        raise _missing("workspace", name, "torpor workspaces list")

    def workspaces(self, *, everyone: bool = False) -> list[Workspace]:
        """Return one's own workspaces, or everyone's (platform admins)."""
        found = self.connection.items(wire.workspaces(everyone=everyone))
        return [Workspace(self.connection, Resource.parse(item)) for item in found]

    def tenant(self, name: str) -> Resource:
        """Return the tenant with that name. Raises NotFound."""
        for tenant in self.tenants():
            if tenant.name == name:
                return tenant
        raise _missing("tenant", name, "torpor tenants list")

    def tenants(self) -> list[Resource]:
        """Return the tenants that one may see, with their limits and what they hold."""
        return [Resource.parse(item) for item in self.connection.items(wire.tenants())]

    def create_workspace(
        self, name: str, *, tenant: str | None = None, profile: str | None = None, start: bool = False
    ) -> Workspace:
        """Return a new workspace: by default of one's first tenant, with the default profile."""
        tenant = tenant or self._first_tenant()
        spec = {"name": name, "tenant": tenant, "profile": profile, "desired": "running" if start else None}
        given = {key: value for key, value in spec.items() if value is not None}
        answer = self.connection.json(wire.create_workspace(given, key=uuid.uuid4().hex))
        return Workspace(self.connection, Resource.parse(answer))

    def create_dataset(
        self, name: str, *, source: str, path: str, format: str = "parquet", description: str = ""
    ) -> Dataset:
        """Return a new dataset ``tenant/name``: the files at ``path`` of a source. Its first import is queued."""
        tenant, _, short = name.rpartition("/")
        fields = {
            "name": short,
            "tenant": tenant or self._first_tenant(),
            "source": source,
            "path": path,
            "format": format,
            "description": description,
        }
        answer = self.connection.json(wire.create_dataset(fields, key=uuid.uuid4().hex))
        return Dataset(self.connection, Resource.parse(answer))

    def import_dataset(self, name: str) -> Resource:
        """Return a new import of a dataset, queued."""
        request = wire.import_dataset(self.dataset(name).id, key=uuid.uuid4().hex)
        return Resource.parse(self.connection.json(request))

    def job_options(self) -> Mapping[str, Any]:
        """Return what a job of this workspace may be: kinds, environments, defaults and the most that it may ask for."""
        answer: Mapping[str, Any] = self.connection.json(wire.job_options(self.settings.workspace or None))
        return answer

    def submit(
        self,
        fn_or_argv: Callable[..., Any] | Sequence[str],
        *args: Any,
        kind: str | None = None,
        name: str | None = None,
        cores: float | None = None,
        memory: str | int | None = None,
        environment: str | None = None,
        timeout: float | None = None,
        retries: int | None = None,
        wait: bool = False,
        **kwargs: Any,
    ) -> Job:
        """Return the job that runs a function with its arguments, or a command given as a list of words.

        ``kind`` is ``command`` (the default) or ``spark``; ``cores`` and ``memory`` (``"2GiB"``, ``"512 MiB"``, or bytes) what it
        gets, by default what the platform offers; ``environment`` is ``workspace`` (the default in a workspace: what is installed
        here now), ``profile`` (nothing installed) or a digest; ``timeout`` in seconds; ``retries`` how often it may begin again.
        With ``wait`` the call returns when the job has ended. Raises BundleError for what cannot be sent.
        """
        code, bundle = _packed(fn_or_argv, args, kwargs)
        spec = {
            "name": name or job_name(code["name"] if bundle else code["argv"][0]),
            "kind": kind or "command",
            "environment": environment or ("workspace" if self.settings.workspace else "profile"),
            "amount": self._amount(cores, memory),
            "ranks": 1,
            "code": code,
            "timeout_s": timeout,
            "retries": retries,
            "desired": "running",
        }
        if self.settings.workspace:
            spec["workspace"] = self.settings.workspace
        request = wire.submit_job(spec, bundle, key=uuid.uuid4().hex)
        job = Job(self.connection, Resource.parse(self.connection.json(request)))
        if wait:
            job.wait()
        return job

    def close(self) -> None:
        """Close the connections to the platform."""
        self.connection.close()

    def _first_tenant(self) -> str:
        mine = [str(tenant["name"]) for tenant in self.me().tenants if tenant.get("role") != "viewer"]
        if not mine:
            raise ConfigurationError("You are a member of no tenant.", next_step="Ask an admin to be added to one.")
        return mine[0]

    def _amount(self, cores: float | None, memory: str | int | None) -> dict[str, int]:
        default: Mapping[str, int] = {}
        if cores is None or memory is None:
            default = self.job_options()["default"]["amount"]
        cpu_milli = default.get("cpu_milli", 1000) if cores is None else round(cores * 1000)
        memory_bytes = default.get("memory_bytes", 1024**3) if memory is None else units.parse_memory(memory)
        return {"cpu_milli": cpu_milli, "memory_bytes": memory_bytes, "gpu_count": 0}

    def _resource(self, collection: str, identity: str) -> Resource:
        return Resource.parse(self.connection.json(wire.one(collection, identity)))

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _packed(
    fn_or_argv: Callable[..., Any] | Sequence[str], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[dict[str, Any], bytes | None]:
    """Return the ``code`` of a job's spec, and the bundle of a function."""
    if callable(fn_or_argv):
        bundle = bundles.build(fn_or_argv, args, kwargs)
        return dict(bundle.code()), bundle.payload
    words = [fn_or_argv] if isinstance(fn_or_argv, str) else list(fn_or_argv)
    if isinstance(fn_or_argv, str) or not words or not all(isinstance(word, str) for word in words):
        raise TypeError("Give a function, or a command as a list of words such as ['python', 'train.py'].")
    if args or kwargs:
        raise TypeError("A command takes no arguments besides its words.")
    return {"type": "command", "argv": words}, None


def job_name(text: str) -> str:
    """Return a name that the platform takes, made from a function's or program's: lower case, digits, single hyphens."""
    words = re.sub(r"[^a-z0-9]+", "-", text.rpartition("/")[2].lower()).strip("-")
    letters = words if words[:1].isalpha() else f"job-{words}"
    return letters[:JOB_NAME_LENGTH].strip("-")


def _missing(kind: str, name: str, listing: str) -> NotFound:
    return _refusal(
        NotFound, 404, f"There is no {kind} '{name}', or you may not see it.", f"List them with: {listing}."
    )


def _refusal(kind: type[Refusal], status: int, detail: str, step: str) -> Refusal:
    return kind(Problem(status, detail=detail, next_step=step))
