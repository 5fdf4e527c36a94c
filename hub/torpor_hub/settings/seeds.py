"""What the first start of an installation creates."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from torpor_hub.settings.base import GIB, Closed


class TenantSeed(Closed):
    """A tenant that is made at the first start."""

    name: str = Field(description="Short name, used in addresses and commands.")
    title: str = Field("", description="What people read; empty: the name.")
    cpu_milli: int = Field(
        4000, ge=0, description="CPU that the tenant's workspaces and jobs may hold together, in thousandths of a core."
    )
    memory_bytes: int = Field(8 * GIB, ge=0, description="Memory that they may hold together, in bytes.")
    gpu_count: int = Field(0, ge=0, description="GPUs that they may hold together.")


class UserSeed(Closed):
    """A user that is made at the first start."""

    name: str = Field(description="The name to sign in with.")
    admin: bool = Field(False, description="Whether the user is a platform admin.")
    tenants: dict[str, Literal["admin", "member", "viewer"]] = Field(
        default_factory=dict, description="Role by tenant name."
    )


class ProfileSeed(Closed):
    """A profile that is made at the first start."""

    name: str = Field(description="Short name, used in commands.")
    title: str = Field(description="What people read where they choose.")
    description: str = Field("", description="One sentence on what it is good for.")
    cpu_milli: int = Field(1000, description="CPU of a workspace, in thousandths of a core.")
    memory_bytes: int = Field(2 * GIB, description="Memory of a workspace, in bytes.")
    gpu_count: int = Field(0, description="GPUs of a workspace.")
    image: str = Field(
        "",
        description="The image that its workspaces and jobs run, on a cluster; an image's own label names its kinds.",
    )
    kinds: tuple[str, ...] = Field(("command", "spark"), description="Kinds of job that it can run.")
    default: bool = Field(False, description="Whether it is chosen where nobody chooses.")


class SeedSettings(Closed):
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
