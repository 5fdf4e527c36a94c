"""What the documentation says is there: commands, settings, codes, pages, and code that compiles."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import typer.main

from tests.api.test_every_route import ROUTES
from torpor.cli.root import application
from torpor_hub.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
BLOCK = re.compile(r"^( *)```(\w+)([^\n]*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^]]*]\(([^)\s]+)\)")
# The lead picture is taken from a running platform.
PICTURES = {"docs/images/panel.png"}


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path, *languages: str) -> list[str]:
    """Return the code blocks of a page in these languages, without their indentation."""
    found = BLOCK.findall(page.read_text())
    return [re.sub(f"^{indent}", "", code, flags=re.M) for indent, kind, _, code in found if kind in languages]


def commands(page: Path) -> Iterator[list[str]]:
    """Yield the words of each command in the page's shell blocks; a line that ends in a backslash goes on."""
    for block in blocks(page, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            if line.strip() and not line.startswith("#"):
                yield shlex.split(line)


def generator() -> ModuleType:
    """Return the script that writes the generated pages, as a module."""
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ALL_COMMANDS = [(name(page), words) for page in PAGES for words in commands(page)]


@pytest.mark.parametrize(("page", "words"), [each for each in ALL_COMMANDS if each[1][0] == "make"])
def test_every_make_command_names_a_target(page: str, words: list[str]) -> None:
    ended = subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, f"{page}: {ended.stderr}"


@pytest.mark.parametrize(("page", "words"), [each for each in ALL_COMMANDS if each[1][0] == "torpor"])
def test_every_torpor_command_is_one_with_such_options(page: str, words: list[str]) -> None:
    command, rest = typer.main.get_command(with_up()), words[1:]
    while rest and rest[0] in getattr(command, "commands", {}):
        command, rest = command.commands[rest[0]], rest[1:]  # type: ignore[attr-defined]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    asked = {word for word in rest[: rest.index("--") if "--" in rest else None] if word.startswith("-")}
    assert asked <= known, f"{page}: {words}"
    assert not hasattr(command, "commands"), f"{page}: {words} is no whole command"


def with_up() -> typer.Typer:
    """Return the command line as it is where the platform is installed."""
    from torpor_hub.programs.embedded import commands as add_up
    from torpor_hub.programs.users import commands as add_users

    app = application()
    add_up(app)
    add_users(app)
    return app


def test_every_other_command_in_a_shell_block_is_a_common_one() -> None:
    programs = {words[0] for _, words in ALL_COMMANDS}
    assert programs <= {"make", "torpor", "curl", "tar", "kubectl", "helm"}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_python_blocks_compile(page: Path) -> None:
    for code in blocks(page, "python"):
        assert compile(code, name(page), "exec", ast.PyCF_ONLY_AST)


def test_the_tutorial_has_blocks_to_run_that_need_nothing_of_the_notebook() -> None:
    found = BLOCK.findall((DOCS / "tutorial/first-steps.md").read_text())
    runnable = [code for _, kind, more, code in found if kind == "python" and "runnable" in more]
    assert len(runnable) >= 4
    assert not [code for code in runnable if "JobForm" in code or "%" in code]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_inside_of_the_project_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(), flags=re.DOTALL)
    for target in LINK.findall(text):
        path, _, anchor = target.partition("#")
        if "://" in target or (path and name_of(page, path) in PICTURES):
            continue
        file = page if not path else (page.parent / path).resolve()
        assert file.exists(), f"{name(page)}: {target}"
        assert not anchor or anchor in anchors(file), f"{name(page)}: {target}"


def name_of(page: Path, path: str) -> str:
    return str((page.parent / path).resolve().relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as a forge makes them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", ["settings", "errors", "rights", "values"])
def test_the_generated_pages_are_what_the_code_gives(page: str) -> None:
    made: str = getattr(generator(), f"{page}_page")()
    assert (DOCS / f"reference/{page}.md").read_text() == made, "Run: .venv/bin/python docs/generate.py"


def test_every_setting_has_an_entry_with_a_meaning() -> None:
    text = (DOCS / "reference/settings.md").read_text()
    for field in Settings.model_fields:
        assert re.search(rf"`{field}[.`\[]", text), field
    assert "| None |" not in text


def test_every_code_of_a_refusal_has_an_entry() -> None:
    text = (DOCS / "reference/errors.md").read_text()
    sources = (ROOT / "hub/torpor_hub").rglob("*.py")
    codes = {
        code for file in sources for code in re.findall(r'^    code = "([a-z_]+)"', file.read_text(), re.MULTILINE)
    }
    assert len(codes) > 10
    assert [code for code in codes - {"error"} if f"| `{code}` |" not in text] == []


def test_every_route_is_in_the_reference_and_no_other() -> None:
    text = (DOCS / "reference/http-api.md").read_text()
    said = {(method, bare(path)) for method, path in re.findall(r"`(GET|POST|PUT|PATCH|DELETE) (/[^ `?]*)", text)}
    assert said == {(method, bare(path)) for method, path in ROUTES}


def bare(path: str) -> str:
    return re.sub(r"{[^}]*}", "{}", path)


def test_every_reason_has_a_line_that_says_what_to_do() -> None:
    text = (DOCS / "howto/when-something-fails.md").read_text()
    assert [reason for reason in sorted(reasons()) if f"| `{reason}` |" not in text] == []


# Where a reason stands among the plain arguments of a call.
POSITIONS = {"Cause": slice(0, 1), "Verdict": slice(1, 2), "_fail": slice(1, 2), "_failed_start": slice(2, 3)}


def reasons() -> set[str]:
    """Return every reason that the code gives: the keywords ``reason`` and ``code``, causes, verdicts, and an agent's codes."""
    found = set()
    for file in (ROOT / "hub/torpor_hub").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call):
                called = getattr(node.func, "id", getattr(node.func, "attr", ""))
                given = [word.value for word in node.keywords if word.arg in ("reason", "code")]
                given += node.args[POSITIONS.get(called, slice(0))]
                found |= {text for value in given for text in _texts(value)}
            elif isinstance(node, ast.FunctionDef) and node.name in ("_code", "judge", "_again"):
                found |= set(_texts(node))
    return {text for text in found if re.fullmatch(r"[A-Z][A-Z_]{3,}", text)}


def _texts(node: ast.AST) -> Iterator[str]:
    for part in ast.walk(node):
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            yield part.value


def test_the_change_log_has_a_place_for_what_comes() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    assert re.search(r"^## Unreleased\n\n### \w+\n\n- ", text, re.MULTILINE)


REGISTRIES = (r"pypi\.org", r"pythonhosted\.org", r"npmjs\.(org|com)", r"repo1?\.maven")
SOURCES = {".py", ".md", ".toml", ".ts", ".tsx", ".css", ".js", ".html", ".json", ".txt", ""}
MADE = {"node_modules", "labextension", "lib", "__pycache__"}


def sources() -> Iterator[Path]:
    """Yield every file that people write, and the lock files."""
    yield from (file for file in ROOT.iterdir() if file.is_file() and file.suffix in SOURCES and file.name[0] != ".")
    for folder in ("docs", "hub", "sdk", "extensions", "tests", "benchmarks", "requirements"):
        for file in (ROOT / folder).rglob("*"):
            if file.is_file() and file.suffix in SOURCES and not MADE.intersection(file.relative_to(ROOT).parts):
                yield file


def test_nothing_names_a_package_registry_or_a_folder_of_this_machine() -> None:
    of_machine = [re.escape(str(folder)) + r"\b" for folder in {ROOT, Path.home()} if len(folder.parts) > 1]
    forbidden = re.compile("|".join((*REGISTRIES, *(rf"(?<![\w.}}]){folder}" for folder in of_machine))))
    seen = list(sources())
    assert len(seen) > 200
    assert [name(file) for file in seen if forbidden.search(file.read_text(errors="replace"))] == []
