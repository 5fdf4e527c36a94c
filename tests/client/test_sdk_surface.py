"""The SDK's surface is a promise: what is in ``__all__``, nothing else, and documented."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import torpor

pytestmark = pytest.mark.filterwarnings("error")
HEAVY = ("httpx", "pandas", "pyarrow", "cloudpickle", "pydantic", "ipywidgets", "typer")


def public_names():
    names = {name for name in vars(torpor) if not name.startswith("_") and not inspect.ismodule(getattr(torpor, name))}
    return {name for name in names if getattr(torpor, name).__module__.startswith("torpor")}


def test_everything_public_is_listed_and_everything_listed_exists():
    assert sorted(torpor.__all__) == sorted(public_names())


def test_every_public_name_is_in_the_reference():
    reference = Path("docs/reference/sdk.md").read_text()
    assert [name for name in torpor.__all__ if f"`{name}" not in reference and f"torpor.{name}" not in reference] == []


def test_importing_the_sdk_loads_nothing_heavy():
    code = f"import sys, torpor; print([name for name in {HEAVY!r} if name in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
