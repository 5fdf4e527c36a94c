"""The platform's settings: one TOML file, a closed model, every URL made from ``public_url``."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from torpor_hub.errors import StartupError

GIB = 1024**3
API_VERSION = "v1"


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TenantSeed(_Closed):
    """A tenant that is made at the first start."""

    name: str = Field(description="Short name, used in addresses and commands.")
    title: str = Field("", description="What people read; empty: the name.")
    cpu_milli: int = Field(
        4000, ge=0, description="CPU that the tenant's workspaces and jobs may hold together, in thousandths of a core."
    )
    memory_bytes: int = Field(8 * GIB, ge=0, description="Memory that they may hold together, in bytes.")


class UserSeed(_Closed):
    """A user that is made at the first start."""

    name: str = Field(description="The name to sign in with.")
    admin: bool = Field(False, description="Whether the user is a platform admin.")
    tenants: dict[str, Literal["admin", "member", "viewer"]] = Field(
        default_factory=dict, description="Role by tenant name."
    )


class ProfileSeed(_Closed):
    """A profile that is made at the first start."""

    name: str = Field(description="Short name, used in commands.")
    title: str = Field(description="What people read where they choose.")
    description: str = Field("", description="One sentence on what it is good for.")
    cpu_milli: int = Field(1000, description="CPU of a workspace, in thousandths of a core.")
    memory_bytes: int = Field(2 * GIB, description="Memory of a workspace, in bytes.")
    gpu_count: int = Field(0, description="GPUs of a workspace.")
    kinds: tuple[str, ...] = Field(("command", "spark"), description="Kinds of job that it can run.")
    default: bool = Field(False, description="Whether it is chosen where nobody chooses.")


class SeedSettings(_Closed):
    """What the first start creates; later starts leave records alone."""

    tenants: tuple[TenantSeed, ...] = (
        TenantSeed(name="research", title="Research"),
        TenantSeed(name="operations", title="Operations"),
    )
    users: tuple[UserSeed, ...] = (
        UserSeed(name="ada", tenants={"research": "member", "operations": "viewer"}),
        UserSeed(name="ben", tenants={"operations": "member"}),
        UserSeed(name="root", admin=True, tenants={"research": "admin", "operations": "admin"}),
    )
    profiles: tuple[ProfileSeed, ...] = (
        ProfileSeed(
            name="small", title="Small", description="1 core, 2 GiB: notebooks and light analysis.", default=True
        ),
        ProfileSeed(
            name="large",
            title="Large",
            description="2 cores, 4 GiB: Spark in the notebook, larger frames.",
            cpu_milli=2000,
            memory_bytes=4 * GIB,
        ),
    )


class Address(_Closed):
    """Where a service listens on this machine."""

    host: str = Field("127.0.0.1", description="The address to listen at.")
    port: int = Field(ge=1, le=65535, description="The port to listen at.")

    @property
    def url(self) -> str:
        """The root of the service's own URL, without a closing slash."""
        return f"http://{self.host}:{self.port}"


class PoolSettings(_Closed):
    """What the process pool lends. 0 means: taken from the machine (twice its cores, all of its memory)."""

    cpu_milli: int = Field(0, ge=0, description="CPU to lend, in thousandths of a core; 0: twice the machine's cores.")
    memory_bytes: int = Field(0, ge=0, description="Memory to lend, in bytes; 0: all that the machine has.")
    workspace_floor_cpu_milli: int = Field(
        1000, ge=0, description="CPU that jobs never take, so that people can still start a workspace."
    )
    workspace_floor_memory_bytes: int = Field(1 * GIB, ge=0, description="Memory that jobs never take, in bytes.")


class Limits(_Closed):
    """Deadlines and sizes. Every value is a promise that a test knows."""

    grant_s: float = Field(
        30, gt=0, description="How long a grant to start holds its reservation without being repeated."
    )
    start_s: float = Field(180, gt=0, description="How long a workspace may take from its grant to its first answer.")
    sleep_s: float = Field(
        900, gt=0, description="How long a sleep may take before it is given up and the workspace thawed."
    )
    thaw_after_s: float = Field(
        900, gt=0, description="How long the reaper leaves a workspace frozen when nobody asks it to thaw."
    )
    claim_s: float = Field(15, gt=0, description="How long a claimed task stays claimed without a heartbeat.")
    lease_s: float = Field(6, gt=0, description="How long the controller's lease lasts without renewal.")
    import_stage_s: float = Field(60, gt=0, description="How long each stage of an import may take.")
    import_claim_s: float = Field(30, gt=0, description="After this time without an importer, a queued import says so.")
    bundle_bytes: int = Field(16 * 1024**2, gt=0, description="Largest bundle that one submit may carry.")
    sample_rows: int = Field(1000, gt=0, description="Rows that an import stores as a dataset's sample, at most.")
    sample_bytes: int = Field(5 * 1024**2, gt=0, description="Size of a stored sample, at most, in bytes.")
    job_retries: int = Field(1, ge=0, description="How often a job that was lost with its process is run again.")
    token_cache_s: float = Field(
        60, ge=0, le=60, description="How long an answer of the hub about a token is believed."
    )


class Settings(_Closed):
    """All settings of one installation. ``TORPOR_SETTINGS`` or ``--settings`` names the file."""

    state_dir: Path = Field(description="The folder that holds everything that the platform remembers.")
    public_url: str = Field(
        "http://127.0.0.1:8000/", description="The address that people use, with its path; ends in a slash."
    )
    mode: Literal["process"] = Field("process", description="Where workspaces and jobs run.")
    server: Address = Field(description="The api and controller.")
    hub: Address = Field(description="JupyterHub's own address.")
    proxy: Address = Field(description="Where people's requests arrive on this machine.")
    proxy_api: Address = Field(description="The proxy's control address.")
    database_url: str = Field("", description="SQLAlchemy URL; empty: SQLite in the state folder.")
    blobs_url: str = Field(
        "", description="fsspec URL for bundles, samples, logs and results; empty: a folder in the state folder."
    )
    java_home: str = Field("", description="The Java that Spark jobs use.")
    pool: PoolSettings = PoolSettings()
    limits: Limits = Limits()
    seed: SeedSettings = SeedSettings()
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
        return self.database_url or f"sqlite:///{self.state_dir / 'torpor.sqlite'}"

    @property
    def blobs(self) -> str:
        """The fsspec URL in force."""
        return self.blobs_url or f"file://{self.state_dir / 'blobs'}"

    @property
    def images_dir(self) -> Path:
        """The OCI layout that holds environments."""
        return self.state_dir / "images"

    @property
    def data_dir(self) -> Path:
        """The folder for data that the platform brings along or that people put there."""
        return self.state_dir / "data"

    def secret(self, name: str) -> str:
        """Return a generated secret by name: the content of ``<state>/secrets/<name>``.

        Raises:
            StartupError: when the file is not there.
        """
        file = self.state_dir / "secrets" / name
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


def load(file: Path) -> Settings:
    """Return the settings in ``file`` (TOML, or YAML by its ending).

    Raises:
        StartupError: when the file cannot be read or holds something that is not a setting.
    """
    try:
        text = file.read_text()
        content = yaml.safe_load(text) if file.suffix in (".yaml", ".yml") else tomllib.loads(text)
        return Settings.model_validate(content)
    except OSError as error:
        raise StartupError(f"The settings file {file} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, yaml.YAMLError) as error:
        raise StartupError(f"The settings file {file} is not well formed: {error}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise StartupError(f"The settings file {file}: '{place}': {first['msg']}.") from error
