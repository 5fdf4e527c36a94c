"""Which layers a change repeats: that of its own and those above, nothing else."""

from __future__ import annotations

import re
import shutil
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from images import plan

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ROOT / "requirements" / "images"
PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", re.MULTILINE)
# What each image installs of the extras in pyproject.toml.
EXTRAS = {
    "platform": ["cluster"],
    "agent": ["agent"],
    "workspace": ["lab", "widgets", "cli"],
    "workspace-spark": ["lab", "widgets", "cli", "spark"],
}

Change = Callable[[plan.Sources], plan.Sources]


@pytest.fixture
def made_from(tmp_path: Path) -> plan.Sources:
    """A copy of what decides on the images, so that a test may change it."""
    ours = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "images", tmp_path / "images", ignore=ours)
    shutil.copytree(LOCKS, tmp_path / "requirements/images")
    modules = tmp_path / "node_modules"
    (modules / "proxy").mkdir(parents=True)
    for file in ("torpor.whl", "uv", "node_modules/proxy/index.js"):
        (tmp_path / file).write_text(file)
    return plan.Sources(tmp_path, tmp_path / "torpor.whl", tmp_path / "uv", modules, "3.11", "0.1.0")


def keys(made_from: plan.Sources, root: str = "root") -> dict[str, str]:
    found = {plan.ROOT_STEP: root}
    for image in plan.IMAGES.values():
        for step in plan.steps_of(image, made_from):
            found[step.name] = plan.key(step, found[step.base])
    return found


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {name for name in before if before[name] != after[name]}


def test_nothing_is_built_again_where_nothing_changed(made_from: plan.Sources) -> None:
    assert keys(made_from) == keys(made_from)


def test_a_change_of_code_repeats_only_the_last_layer_of_each_image(made_from: plan.Sources) -> None:
    before = keys(made_from)
    made_from.wheel.write_text("another")
    assert changed(before, keys(made_from)) == set(plan.IMAGES)


def test_a_changed_lock_repeats_its_packages_and_what_lies_above(made_from: plan.Sources) -> None:
    before = keys(made_from)
    (made_from.locks / "workspace-spark.txt").write_text("pyspark==0")
    assert changed(before, keys(made_from)) == {"workspace-spark-packages", "workspace-spark"}
    before = keys(made_from)
    (made_from.locks / "workspace.txt").write_text("jupyterlab==0")
    both = {"workspace", "workspace-spark"}
    assert changed(before, keys(made_from)) == both | {f"{name}-packages" for name in both}


def test_another_proxy_repeats_the_platforms_image_alone(made_from: plan.Sources) -> None:
    before = keys(made_from)
    (made_from.node_modules / "proxy/index.js").write_text("another")
    assert changed(before, keys(made_from)) == {"platform-packages", "platform"}


def test_another_root_file_system_repeats_everything(made_from: plan.Sources) -> None:
    before = keys(made_from)
    assert changed(before, keys(made_from, root="another")) == set(before)


def test_another_version_is_another_image_because_its_label_tells_it(made_from: plan.Sources) -> None:
    before = keys(made_from)
    assert changed(before, keys(replace(made_from, platform="0.2.0"))) == set(plan.IMAGES)


def test_sparks_packages_lie_over_those_of_the_workspace(made_from: plan.Sources) -> None:
    plain, spark = (plan.steps_of(plan.IMAGES[name], made_from) for name in ("workspace", "workspace-spark"))
    assert [step.name for step in plain] == ["system", "terminal", "workspace-packages", "workspace"]
    assert [step.name for step in spark] == [
        *(step.name for step in plain[:3]),
        "workspace-spark-packages",
        "workspace-spark",
    ]
    assert [step.base for step in spark] == ["root", *(step.name for step in spark[:-1])]


def test_every_step_finds_what_it_reads(made_from: plan.Sources) -> None:
    for image in plan.IMAGES.values():
        for step in plan.steps_of(image, made_from):
            assert step.dockerfile.is_file()
            assert all(path.exists() for path in step.context.values())


def test_a_name_that_is_no_image_is_refused_with_those_that_are() -> None:
    assert plan.order([]) == list(plan.IMAGES)
    assert plan.order(["workspace", "agent"]) == ["agent", "workspace"]
    with pytest.raises(KeyError, match="workspace-gpu"):
        plan.order(["workspace-gpu"])


@pytest.mark.parametrize("lock", sorted(LOCKS.glob("*.txt")), ids=lambda file: file.stem)
def test_every_package_of_an_image_is_pinned_with_its_hashes(lock: Path) -> None:
    for entry in re.split(r"\n(?=\S)", lock.read_text().strip()):
        assert PIN.match(entry), entry
        assert "--hash=sha256:" in entry


@pytest.mark.parametrize("name", plan.IMAGES)
def test_images_have_the_versions_that_the_tests_run_on(name: str) -> None:
    tested = pins(ROOT / "requirements/dev.txt")
    assert {each: found for each, found in pins(LOCKS / f"{name}.txt").items() if tested.get(each) != found} == {}


@pytest.mark.parametrize("name", plan.IMAGES)
def test_the_locks_have_what_the_extras_ask_for(name: str) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    locked = {each.lower() for each in pins(LOCKS / f"{name}.txt")}
    assert asked(extras, EXTRAS[name]) - locked == set(), "run `make lock`"


def test_an_image_replaces_no_package_of_the_image_below() -> None:
    for image in plan.IMAGES.values():
        if image.above:
            below, own = pins(LOCKS / f"{image.above}.txt"), pins(LOCKS / f"{image.name}.txt")
            assert below.items() <= own.items()


def pins(lock: Path) -> dict[str, frozenset[str]]:
    """Return the versions of each package of a lock file; some have one for each Python."""
    found: dict[str, set[str]] = {}
    for name, version in PIN.findall(lock.read_text()):
        found.setdefault(name, set()).add(version)
    return {name: frozenset(versions) for name, versions in found.items()}


def asked(extras: dict[str, list[str]], names: list[str]) -> set[str]:
    """Return the packages that extras name, those of other extras that they name among them."""
    found = set()
    for requirement in (each for name in names for each in extras[name]):
        inner = re.fullmatch(r"torpor\[(.*)]", requirement)
        if inner:
            found |= asked(extras, inner[1].split(","))
        else:
            found.add(re.split(r"[\[<>=!~; ]", requirement)[0].lower())
    return found
