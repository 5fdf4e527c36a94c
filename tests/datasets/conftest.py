from __future__ import annotations

import random
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.datasets.served_platform import Platform, platform, settings_file
from tests.sources.generated_tables import frame, seeded, write_partitioned


@pytest.fixture
def rng() -> random.Random:
    return seeded()


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform with a running importer, shared by all tests of the room."""
    file = settings_file(tmp_path_factory.mktemp("datasets") / "state", {})
    with platform(file) as running, running.importer():
        yield running


@pytest.fixture(scope="session")
def table(served: Platform) -> Path:
    """A random table below the source ``files``."""
    rng, folder = seeded(), served.data / f"table-{uuid.uuid4().hex[:8]}"
    write_partitioned(rng, frame(rng, rng.randrange(400, 3000)), folder)
    return folder


@pytest.fixture(scope="session")
def ready(served: Platform, table: Path) -> dict[str, Any]:
    """The random table as a dataset that was imported."""
    made = served.register(table.name, table.name)
    assert made["status"]["phase"] == "IMPORTING"
    found = served.ended(made["id"])
    assert found["status"]["phase"] == "READY", found
    return found
