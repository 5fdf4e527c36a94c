"""What the contracts of places and runners share."""

from __future__ import annotations

from pathlib import Path

import pytest

from torpor_hub import failpoints


@pytest.fixture
def armed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of failpoints of this very process."""
    folder = tmp_path / "failpoints"
    folder.mkdir()
    monkeypatch.setenv(failpoints.VARIABLE, str(folder))
    return folder
