"""All tables."""

from torpor_hub.stores.tables.base import Table
from torpor_hub.stores.tables.datasets import Dataset, Import, Read, Source, Upload
from torpor_hub.stores.tables.jobs import Attempt, Job, LogSegment
from torpor_hub.stores.tables.people import Membership, Profile, Tenant, User
from torpor_hub.stores.tables.platform import Change, Component, Lease, Repeat
from torpor_hub.stores.tables.workspaces import Checkpoint, Grant, Operation, Pool, Reservation, Workspace

__all__ = [
    "Attempt",
    "Change",
    "Checkpoint",
    "Component",
    "Dataset",
    "Grant",
    "Import",
    "Job",
    "Lease",
    "LogSegment",
    "Membership",
    "Operation",
    "Pool",
    "Profile",
    "Read",
    "Repeat",
    "Reservation",
    "Source",
    "Table",
    "Tenant",
    "Upload",
    "User",
    "Workspace",
]
