from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.datasets.served_platform import Platform, platform, settings_file

# Short deadlines, so that what has to time out does so within a test.
LIMITS = {"claim_s": 1.5, "import_stage_s": 4, "import_claim_s": 1}


@pytest.fixture(scope="session")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform with short deadlines; every test starts importers of its own."""
    with platform(settings_file(tmp_path_factory.mktemp("importer") / "state", LIMITS)) as running:
        yield running


@pytest.fixture
def failpoints(tmp_path: Path) -> Path:
    (tmp_path / "failpoints").mkdir()
    return tmp_path / "failpoints"


@pytest.fixture
def small(impatient: Platform) -> str:
    """The path of a small good dataset."""
    folder = impatient.data / "small"
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table({"n": range(100)}), folder / "part.parquet")
    return "small"
