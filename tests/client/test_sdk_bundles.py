"""A function goes by value: it runs in a fresh interpreter that has none of the notebook."""

import functools
import hashlib
import pickle
import subprocess
import sys
import textwrap
import threading

import cloudpickle
import pytest

import torpor
from torpor import bundles

pytestmark = pytest.mark.filterwarnings("error")

RUN = """
import hashlib, sys, cloudpickle
from pathlib import Path
bundle = cloudpickle.loads(Path(sys.argv[1]).read_bytes())
value = bundle["function"](*bundle["args"], **bundle["kwargs"])
print(repr(value))
"""
NOTEBOOK = """
import sys
sys.path.insert(0, "notebook_folder")
import json
from pathlib import Path
import shapes
from shapes import area
from kit.units import to_cm
from torpor import bundles

FACTOR = 3

def helper(number):
    return number * FACTOR

class Offset:
    def __init__(self, by):
        self.by = by
    def add(self, number):
        return helper(number) + self.by

def make(bonus):
    def inner(number, *, twice=False):
        total = Offset(100).add(number) + bonus + area(2) + shapes.area(3) + to_cm(1)
        return json.dumps({"total": total * (2 if twice else 1)})
    return inner

bundle = bundles.build(make(5), (7,), {"twice": True})
Path("bundle.pkl").write_bytes(bundle.payload)
print(bundle.name, bundle.python)
"""


@pytest.fixture
def notebook(tmp_path):
    """A folder with a notebook's code and local modules beside it."""
    folder = tmp_path / "notebook_folder"
    (folder / "kit").mkdir(parents=True)
    (folder / "shapes.py").write_text("SIDE = 10\ndef area(n):\n    return n * SIDE\n")
    (folder / "kit" / "__init__.py").write_text("")
    (folder / "kit" / "units.py").write_text("from kit.scale import SCALE\ndef to_cm(n):\n    return n * SCALE\n")
    (folder / "kit" / "scale.py").write_text("SCALE = 100\n")
    return tmp_path


def python(folder, code, *arguments):
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_a_function_runs_elsewhere_with_globals_helpers_closure_and_local_modules(notebook):
    made = python(notebook, NOTEBOOK)
    assert made.stderr == ""
    elsewhere = notebook / "elsewhere"
    elsewhere.mkdir()
    answer = python(elsewhere, RUN, str(notebook / "bundle.pkl"))
    total = (7 * 3 + 100) + 5 + 20 + 30 + 100
    assert answer.stdout.strip() == repr(f'{{"total": {total * 2}}}'), answer.stderr


def test_a_local_module_imported_inside_a_function_is_refused_with_the_way_out(notebook):
    answer = python(
        notebook,
        """
        import sys
        sys.path.insert(0, "notebook_folder")
        from torpor import bundles
        def train():
            import shapes
            return shapes.area(1)
        bundles.build(train)
        """,
    )
    assert "train imports the local module 'shapes' inside a function" in answer.stderr
    assert "Write 'import shapes' in a cell of its own" in answer.stderr


def test_what_is_installed_goes_by_name():
    bundle = bundles.build(pytest.approx)
    assert len(bundle.payload) < 500


def test_a_bundle_says_what_the_other_side_must_have():
    code = bundles.build(test_what_is_installed_goes_by_name).code()
    assert code["python"] == f"{sys.version_info.major}.{sys.version_info.minor}"
    assert code["cloudpickle"] == cloudpickle.__version__
    assert code["name"] == "test_what_is_installed_goes_by_name"


def test_the_hash_is_that_of_the_payload():
    bundle = bundles.build(len, ([1],))
    assert bundle.sha256 == hashlib.sha256(bundle.payload).hexdigest()
    assert pickle.loads(bundle.payload)["args"] == ([1],)


BIG = b"b" * 3_000_000
BIGGER = [b"c" * 5_000_000]


def uses_much(extra):
    return len(BIG) + len(BIGGER[0]) + also_uses(extra)


def also_uses(extra):
    return len(LATER) + extra


LATER = b"d" * 4_000_000


def test_what_is_too_large_is_named_largest_first():
    with pytest.raises(torpor.BundleTooLarge) as caught:
        bundles.build(uses_much, (b"e" * 10,), limit_bytes=1_000_000)
    assert [name for name, _ in caught.value.largest] == ["BIGGER", "LATER", "BIG"]
    assert "BIGGER (4.8 MiB), LATER (3.8 MiB), BIG (2.9 MiB)" in str(caught.value)
    assert "torpor.dataset(" in str(caught.value)


def test_a_large_argument_is_named():
    with pytest.raises(torpor.BundleTooLarge, match=r"argument 1 \(1\.9 MiB\)"):
        bundles.build(len, (b"x" * 2_000_000,), limit_bytes=1_000_000)


LOCK = threading.Lock()


def locks():
    return LOCK.locked()


def test_what_cannot_be_sent_is_named():
    with pytest.raises(torpor.BundleError, match=r"locks cannot be sent to a job: it uses 'LOCK'"):
        bundles.build(locks)


def test_a_partial_of_a_method_is_looked_through():
    bound = functools.partial(BIGGER.__class__.__len__, BIGGER)
    with pytest.raises(torpor.BundleTooLarge):
        bundles.build(bound, limit_bytes=1000)


def test_the_registry_of_cloudpickle_is_left_as_it_was():
    before = set(cloudpickle.list_registry_pickle_by_value())
    bundles.build(locks.__class__, limit_bytes=10_000)
    assert set(cloudpickle.list_registry_pickle_by_value()) == before
