"""The platform's settings: a closed model, every URL made from ``public_url``."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from torpor_hub.errors import StartupError
from torpor_hub.settings.base import Closed
from torpor_hub.settings.cluster import ClusterSettings, PathSettings, RegistrySettings
from torpor_hub.settings.limits import Limits, PoolSettings
from torpor_hub.settings.seeds import SeedSettings

API_VERSION = "v1"


class Address(Closed):
    """Where a service listens on this machine."""

    host: str = Field("127.0.0.1", description="The address to listen at.")
    port: int = Field(ge=1, le=65535, description="The port to listen at.")
    connect_url: str = Field("", description="How others reach it, without a closing slash; empty: by host and port.")

    @property
    def url(self) -> str:
        """The root of the service's own URL, without a closing slash."""
        return self.connect_url or f"http://{self.host}:{self.port}"


class Settings(Closed):
    """All settings of one installation. ``TORPOR_SETTINGS`` or ``--settings`` names the file."""

    state_dir: Path = Field(description="The folder that holds everything that the platform remembers.")
    public_url: str = Field(
        "http://127.0.0.1:8000/", description="The address that people use, with its path; ends in a slash."
    )
    mode: Literal["process", "kubernetes"] = Field("process", description="Where workspaces and jobs run.")
    server: Address = Field(description="The api and controller.")
    hub: Address = Field(description="JupyterHub's own address.")
    proxy: Address = Field(description="Where people's requests arrive on this machine.")
    proxy_api: Address = Field(description="The proxy's control address.")
    secrets_dir: Path | None = Field(None, description="The folder of generated secrets; none: `secrets` in the state.")
    database_url: str = Field(
        "", description="SQLAlchemy URL; empty: `TORPOR_DATABASE_URL`, else SQLite in the state folder."
    )
    blobs_url: str = Field(
        "", description="fsspec URL for bundles, samples, logs and results; empty: a folder in the state folder."
    )
    java_home: str = Field("", description="The Java that Spark jobs use.")
    save_environments: bool = Field(
        True,
        description="Whether environments can be saved and restored, as sleep and jobs in a workspace's environment need; false "
        "on a cluster without an image registry.",
    )
    pool: PoolSettings = PoolSettings()
    limits: Limits = Limits()
    seed: SeedSettings = SeedSettings()
    paths: PathSettings = PathSettings()
    registry: RegistrySettings = RegistrySettings()
    cluster: ClusterSettings = ClusterSettings()
    source_roots: tuple[Path, ...] = Field(
        (), description="Folders below which files sources may lie; the state folder's `data` is always one."
    )

    @field_validator("public_url")
    @classmethod
    def _ends_in_slash(cls, value: str) -> str:
        return value if value.endswith("/") else value + "/"

    @property
    def base_path(self) -> str:
        """The path below which everything is served; begins and ends with a slash."""
        return urlsplit(self.public_url).path or "/"

    @property
    def hub_path(self) -> str:
        """The path of the hub's pages."""
        return f"{self.base_path}hub/"

    @property
    def service_path(self) -> str:
        """The path of the platform's pages and api, as the proxy routes it."""
        return f"{self.base_path}services/torpor/"

    @property
    def api_path(self) -> str:
        """The path of the REST api."""
        return f"{self.service_path}api/{API_VERSION}"

    @property
    def service_url(self) -> str:
        """The direct URL of the platform's service: what programs on this machine use (``TORPOR_URL``); ends in a slash."""
        return f"{self.server.url}{self.service_path}"

    @property
    def api_url(self) -> str:
        """The direct URL of the REST api, without a closing slash."""
        return f"{self.server.url}{self.api_path}"

    @property
    def hub_api_url(self) -> str:
        """The direct URL of the hub's REST api, without a closing slash."""
        return f"{self.hub.url}{self.hub_path}api"

    @property
    def database(self) -> str:
        """The SQLAlchemy URL in force."""
        given = self.database_url or os.environ.get("TORPOR_DATABASE_URL", "")
        return given or f"sqlite:///{self.state_dir / 'torpor.sqlite'}"

    @property
    def blobs(self) -> str:
        """The fsspec URL in force."""
        return self.blobs_url or f"file://{self.state_dir / 'blobs'}"

    @property
    def images_dir(self) -> Path:
        """The OCI layout that holds environments."""
        return self.state_dir / "images"

    def workspace_dir(self, workspace: str) -> str:
        """Return where a workspace's own folder lies, by its id."""
        return self.paths.workspace.format(state=self.state_dir, workspace=workspace)

    def home_dir(self, tenant: str, user: str) -> str:
        """Return where a user's home in a tenant lies, by their names."""
        return self.paths.home.format(state=self.state_dir, tenant=tenant, user=user)

    def image(self, repository: str, digest: str) -> str:
        """Return an image as a node pulls it; empty where there is no registry."""
        return f"{self.registry.host}/{repository}@{digest}" if self.registry.host else ""

    @property
    def data_dir(self) -> Path:
        """The folder for data that the platform brings along or that people put there."""
        return Path(self.paths.data.format(state=self.state_dir))

    @property
    def secrets_folder(self) -> Path:
        """The folder of secrets."""
        return self.secrets_dir or self.state_dir / "secrets"

    def pull_secrets(self) -> dict[str, str]:
        """Return the docker configs of the pull secrets of images by their files' names, in order, as they are now."""
        found = {}
        for file in sorted(self.secrets_folder.glob("pull-secrets/*")):
            # One that was removed meanwhile is one that is not there.
            with contextlib.suppress(FileNotFoundError):
                found[file.name] = file.read_text()
        return found

    def registry_account(self, use: Literal["push", "pull"]) -> dict[str, str]:
        """Return name and password of the registry's account for ``use``; empty texts where it has no accounts.

        Raises:
            StartupError: when the secret is not ``name:password``.
        """
        file = self.secrets_folder / f"registry-{use}"
        if not file.exists():
            return {"username": "", "password": ""}
        name, colon, password = self.secret(f"registry-{use}").partition(":")
        if not colon:
            raise StartupError(f"The secret 'registry-{use}' is not of the form name:password.")
        return {"username": name, "password": password}

    def secret(self, name: str) -> str:
        """Return a generated secret by name: the content of a file in the folder of secrets.

        Raises:
            StartupError: when the file is not there.
        """
        file = self.secrets_folder / name
        try:
            return file.read_text().strip()
        except OSError as error:
            raise StartupError(f"The secret '{name}' cannot be read from {file}. `torpor up` makes it.") from error

    def pool_cpu_milli(self) -> int:
        """Return the CPU that the process pool lends."""
        return self.pool.cpu_milli or 2000 * (os.cpu_count() or 1)

    def pool_memory_bytes(self) -> int:
        """Return the memory that the process pool lends."""
        return self.pool.memory_bytes or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
