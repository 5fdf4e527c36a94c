"""Deadlines and sizes, and what the process pool lends."""

from __future__ import annotations

from pydantic import Field

from torpor_hub.settings.base import GIB, Closed


class PoolSettings(Closed):
    """What the process pool lends. 0 means: taken from the machine (twice its cores, all of its memory)."""

    cpu_milli: int = Field(0, ge=0, description="CPU to lend, in thousandths of a core; 0: twice the machine's cores.")
    memory_bytes: int = Field(0, ge=0, description="Memory to lend, in bytes; 0: all that the machine has.")
    workspace_floor_cpu_milli: int = Field(
        1000, ge=0, description="CPU that jobs never take, so that people can still start a workspace."
    )
    workspace_floor_memory_bytes: int = Field(1 * GIB, ge=0, description="Memory that jobs never take, in bytes.")


class Limits(Closed):
    """Deadlines and sizes. Every value is a promise that a test knows."""

    grant_s: float = Field(
        30, gt=0, description="How long a grant to start holds its reservation without being repeated."
    )
    start_s: float = Field(180, gt=0, description="How long a workspace may take from its grant to its first answer.")
    job_start_s: float = Field(
        600, gt=0, description="How long a job may take to come up where something hinders it, such as a lack of room."
    )
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
