"""The rules that every image keeps."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from images import plan

FOLDER = Path(__file__).resolve().parents[2] / "images"
ALL = sorted(FOLDER.rglob("*Dockerfile"))
OWN = {name: FOLDER / name / "Dockerfile" for name in plan.IMAGES}
LABELS = {"org.torpor.image", "org.torpor.kinds", "org.torpor.platform", "org.torpor.python"}


def instructions(file: Path) -> list[tuple[str, str]]:
    """Return a Dockerfile's instructions; a line that ends in a backslash goes on."""
    text = re.sub(r"^#.*\n", "", file.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    lines = (line.split(maxsplit=1) for line in text.splitlines() if line.strip())
    return [(words[0], " ".join(words[1:])) for words in lines]


def values(file: Path, instruction: str) -> list[str]:
    return [value for name, value in instructions(file) if name == instruction]


def labels(name: str) -> dict[str, str]:
    return dict(re.findall(r'(\S+)="([^"]*)"', " ".join(values(OWN[name], "LABEL"))))


@pytest.mark.parametrize("name", plan.IMAGES)
def test_an_image_runs_as_the_user_1000_at_home(name: str) -> None:
    order = [instruction for instruction, _ in instructions(OWN[name])]
    assert values(OWN[name], "USER") == ["1000:1000"]
    assert values(OWN[name], "WORKDIR") == ["/home/user"]
    assert "RUN" not in order[order.index("USER") :]


@pytest.mark.parametrize("name", plan.IMAGES)
def test_an_image_says_what_it_is(name: str) -> None:
    found = labels(name)
    assert set(found) == LABELS
    assert found["org.torpor.image"] == name
    assert (found["org.torpor.platform"], found["org.torpor.python"]) == ("${PLATFORM}", "${PYTHON}")


@pytest.mark.parametrize("name", plan.IMAGES)
def test_an_image_is_checked_from_inside_and_every_kind_that_it_names_is_run(name: str) -> None:
    verify = FOLDER / name / "verify"
    assert verify.stat().st_mode & 0o111
    assert f'main("{name}"' in verify.read_text()
    kinds = {kind for kind in labels(name)["org.torpor.kinds"].split(",") if kind}
    assert kinds <= kinds_that_are_run()
    assert bool(kinds) == name.startswith("workspace")


def kinds_that_are_run() -> set[str]:
    """Return the keys of ``KINDS``; the module itself can be imported only inside of an image."""
    for node in ast.parse((FOLDER / "workspace_checks.py").read_text()).body:
        if isinstance(node, ast.AnnAssign) and getattr(node.target, "id", "") == "KINDS":
            assert isinstance(node.value, ast.Dict)
            return {str(ast.literal_eval(key)) for key in node.value.keys if key is not None}
    raise AssertionError("There is no KINDS.")


@pytest.mark.parametrize("file", ALL, ids=lambda file: str(file.relative_to(FOLDER)))
def test_nothing_comes_from_a_remote_address(file: Path) -> None:
    assert set(values(file, "FROM")) <= {"scratch", "${BASE}"}
    assert not [value for value in (*values(file, "ADD"), *values(file, "COPY")) if "://" in value or "--from" in value]


@pytest.mark.parametrize("file", ALL, ids=lambda file: str(file.relative_to(FOLDER)))
def test_what_the_builder_knows_comes_as_a_secret_and_never_as_an_argument(file: Path) -> None:
    given = {value.split("=")[0] for value in (*values(file, "ARG"), *values(file, "ENV"))}
    assert not [name for name in given if re.search("PIP|UV|INDEX|PROXY|CERT|TOKEN|PASSWORD", name)]


def test_the_users_part_is_chowned_by_the_layer_that_makes_it() -> None:
    script = (FOLDER / "workspace/make-workspace").read_text()
    assert script.index("layering.create") < script.index("chown -R 1000:1000")
    for name in ("workspace", "workspace-spark"):
        assert len([run for run in values(OWN[name], "RUN") if "make-workspace" in run]) == 1


@pytest.mark.parametrize("script", sorted(FOLDER.rglob("install-*")), ids=lambda file: file.name)
def test_a_secret_may_be_missing_because_docker_mounts_no_file_where_it_is_empty(script: Path) -> None:
    text = script.read_text()
    for name in set(re.findall(r"/run/secrets/\w+", text)):
        test = re.search(rf"if \[ -[es] {name} \]; then", text)
        assert test, f"{script.name} reads {name} without asking whether it is there"
        assert test.end() < text.index(name, test.end()) < text.index("\nfi", test.end())
