from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.jobs.job_platform import JobPlatform
from torpor_hub.stores.base import Store


@pytest.fixture
def platform(tmp_path: Path, migrated_sqlite: Path) -> Iterator[JobPlatform]:
    """Give a running platform for jobs; whatever runs there is ended."""
    shutil.copy(migrated_sqlite, tmp_path / "torpor.sqlite")
    store = Store(f"sqlite:///{tmp_path / 'torpor.sqlite'}")
    made = JobPlatform(tmp_path / "state", store)
    yield made
    made.close()
    store.close()
