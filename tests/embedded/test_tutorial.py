"""The tutorial's own code, run in a workspace of a running platform, in the order of the page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.people import Person
from tests.support.platform import platform, until

pytestmark = [pytest.mark.embedded, pytest.mark.slow, pytest.mark.timeout(600)]
PAGE = Path(__file__).parents[2] / "docs" / "tutorial" / "first-steps.md"
BLOCK = re.compile(r"^```python runnable\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.fixture
def ada(tmp_path: Path) -> Iterator[Person]:
    with platform(tmp_path, demo_data=True) as site:
        yield Person(site, "ada")


def flights_are_ready(ada: Person) -> bool:
    found = ada.get("/datasets?name=research/flights")["items"]
    return bool(found and found[0]["status"]["phase"] == "READY")


def test_the_code_of_the_tutorial_runs_as_it_stands(ada: Person) -> None:
    until(lambda: flights_are_ready(ada), 120, "the example data")
    workspace = ada.create("first", "research")
    ada.reaches(workspace, "RUNNING")
    with ada.kernel(workspace) as kernel:
        said = [kernel.run(block, within_s=300) for block in BLOCK.findall(PAGE.read_text())]
        kernel.run("import pandas; assert isinstance(flights, pandas.DataFrame) and len(flights) == 1000")
        kernel.run("assert set(late['month']) == {6, 7} and (late['dep_delay'] > 120).all()")
    assert "('EWR', 120835)" in "".join(said)
