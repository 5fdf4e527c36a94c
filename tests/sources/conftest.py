from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.sources.generated_tables import frame, seeded, write_partitioned
from torpor_hub.sources.base import Connector, Request
from torpor_hub.sources.registry import connector

Opened = Callable[[str], Connector]


@pytest.fixture
def rng() -> random.Random:
    return seeded()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.fixture
def opened(root: Path) -> Opened:
    """Open a dataset below the root."""

    def open_(path: str) -> Connector:
        source, dataset = {"root": str(root)}, {"path": path, "format": "parquet"}
        return connector("files", Request(source, dataset, (root.parent,)))

    return open_


@pytest.fixture
def table(rng: random.Random, root: Path) -> Path:
    """A random table in hive partitions."""
    write_partitioned(rng, frame(rng, rng.randrange(400, 3000)), root / "table")
    return root / "table"
