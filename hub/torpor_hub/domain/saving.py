"""What people are told where environments are not saved: every place that says it says the same."""

from __future__ import annotations

from torpor_hub.domain.diagnose import Cause

NO_SLEEP = Cause(
    "ENVIRONMENTS_NOT_SAVED",
    "No workspace can sleep here: this platform has no image registry to save environments in.",
    "Stop it instead, which discards what was installed, or ask a platform admin to set a registry.",
)
NO_WAKE = Cause(
    "ENVIRONMENTS_NOT_SAVED",
    "What was saved of this workspace cannot be read: this platform has no image registry any more.",
    "Start it with the profile's own environment, or ask a platform admin to set a registry.",
)
STOP_DISCARDS = Cause(
    "ENVIRONMENTS_NOT_SAVED",
    "Stopping ends the workspace and discards what was installed: this platform has no image registry to save it in.",
    "Confirm with `discard: true`. Files in the home stay.",
)
WORKSPACE = (
    "What is installed here is not saved: this platform has no image registry. Stopping discards it; the home stays."
)
JOBS = "Jobs run with the profile's own image, without what you installed: this platform has no image registry to save it in."
NO_DIGEST = Cause(
    "ENVIRONMENTS_NOT_SAVED",
    "Saved environments cannot be read: this platform has no image registry.",
    "Submit it with the environment `profile`.",
)
