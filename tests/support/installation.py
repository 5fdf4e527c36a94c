"""Settings and first records for tests that need no running platform."""

from __future__ import annotations

from pathlib import Path

from torpor_hub.domain.units import Amount
from torpor_hub.services import ledger, seeding
from torpor_hub.settings import Address, Settings
from torpor_hub.stores.base import Store

GIB = 1024**3


def settings_in(state_dir: Path, **values: object) -> Settings:
    """Return settings over a folder; no address in them is listened on."""
    ports = {name: Address(port=number) for number, name in enumerate(("server", "hub", "proxy", "proxy_api"), 1)}
    return Settings.model_validate({"state_dir": state_dir, **ports, **values})


def seeded(store: Store, settings: Settings, capacity: Amount | None = None) -> dict[str, str]:
    """Make the first records and return the users' passwords."""
    with store.begin("test") as tx:
        ledger.set_pool(tx, capacity or Amount(16_000, 64 * GIB), Amount(1000, GIB))
        return dict(seeding.seed(tx, settings))
