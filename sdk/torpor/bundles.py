"""From a function of a notebook to bytes that any interpreter with the same Python can run.

A bundle is the cloudpickle of ``{"function", "args", "kwargs"}``. Functions and classes of the notebook and of local modules
(those outside of the standard library and site-packages) go by value, with the globals that they use; everything that is
installed goes by name, because the job runs in an environment that has it.
"""

from __future__ import annotations

import dis
import functools
import hashlib
import io
import json
import pickle
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any
from urllib.parse import unquote, urlsplit

from torpor import units
from torpor.errors import BundleError, BundleTooLarge
from torpor.wire import BUNDLE_LIMIT_BYTES

SHOWN_LARGEST = 3
INSTALLED_PARTS = frozenset({"site-packages", "dist-packages"})
OURS = frozenset({"torpor", "torpor_hub", "torpor_lab"})
# What objects raise that cannot be pickled: pickle's own errors, and those of C extensions, locks, sockets and Spark sessions.
PICKLE_ERRORS = (pickle.PicklingError, TypeError, AttributeError, ValueError, RuntimeError, OSError)
_registry = threading.Lock()


@dataclass(frozen=True)
class Bundle:
    """A function with its arguments, ready to send, and what the other side needs to know about it."""

    payload: bytes
    name: str
    python: str
    cloudpickle: str

    @property
    def sha256(self) -> str:
        """Return the hash of the payload, in hexadecimal."""
        return hashlib.sha256(self.payload).hexdigest()

    def code(self) -> dict[str, str]:
        """Return the ``code`` of a job's spec."""
        return {
            "type": "function",
            "name": self.name,
            "python": self.python,
            "cloudpickle": self.cloudpickle,
            "sha256": self.sha256,
        }


class _Full(Exception):
    """More was written than may be sent."""


class _Counter(io.RawIOBase):
    """A file that keeps what is written up to ``limit_bytes``, or only counts where there is no limit."""

    def __init__(self, limit_bytes: int | None = None) -> None:
        self.chunks: list[bytes] = []
        self.limit_bytes = limit_bytes
        self.written_bytes = 0

    def write(self, chunk: Any) -> int:
        """Return the bytes taken, which only count."""
        count = memoryview(chunk).nbytes
        self.written_bytes += count
        if self.limit_bytes is not None:
            if self.written_bytes > self.limit_bytes:
                raise _Full
            self.chunks.append(bytes(chunk))
        return count


def build(
    function: Callable[..., Any],
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    limit_bytes: int = BUNDLE_LIMIT_BYTES,
) -> Bundle:
    """Return ``function`` with its arguments as a bundle of at most ``limit_bytes``.

    Raises BundleTooLarge, naming what is large, and BundleError, naming what cannot be sent.
    """
    import cloudpickle

    name = getattr(function, "__name__", type(function).__name__)
    _refuse_hidden_imports(function, name)
    target = _Counter(limit_bytes)
    content = {"function": function, "args": tuple(args), "kwargs": dict(kwargs or {})}
    with by_value(local_modules()):
        try:
            cloudpickle.Pickler(target).dump(content)
        except _Full:
            raise _too_large(name, captured(function, args, kwargs or {}), limit_bytes) from None
        except PICKLE_ERRORS as error:
            raise _unpicklable(name, captured(function, args, kwargs or {}), error) from error
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return Bundle(b"".join(target.chunks), name, version, cloudpickle.__version__)


def local_modules() -> list[ModuleType]:
    """Return the loaded modules that a job cannot import: the user's own, next to the notebook or on a path of theirs."""
    return [module for module in list(sys.modules.values()) if isinstance(module, ModuleType) and _is_local(module)]


@contextmanager
def by_value(modules: Sequence[ModuleType]) -> Iterator[None]:
    """Make cloudpickle send ``modules`` by value for the duration of a with block. One thread at a time."""
    import cloudpickle

    with _registry:
        already = cloudpickle.list_registry_pickle_by_value()
        ours = [module for module in modules if module.__name__ not in already]
        try:
            for module in ours:
                cloudpickle.register_pickle_by_value(module)
            yield
        finally:
            for module in ours:
                if module.__name__ in cloudpickle.list_registry_pickle_by_value():
                    cloudpickle.unregister_pickle_by_value(module)


def captured(
    function: Callable[..., Any], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return, by name, the values that go with ``function``: globals, closures and defaults of it and its helpers, arguments."""
    found: dict[str, Any] = {}
    for member in _functions_of(function):
        for name, value in _names_of(member):
            if not isinstance(value, ModuleType) and not _goes_along(value):
                found.setdefault(name, value)
    found |= {f"argument {number}": value for number, value in enumerate(args, start=1)}
    return found | {f"argument {name}": value for name, value in (kwargs or {}).items()}


def _functions_of(function: Any) -> Iterator[FunctionType]:
    """Return ``function`` and the helpers that are sent by value with it, each once."""
    waiting, seen = [function], set()
    while waiting:
        found = _unwrapped(waiting.pop())
        if id(found) in seen:
            continue
        seen.add(id(found))
        if isinstance(found, type):
            waiting += [member for member in vars(found).values() if isinstance(member, FunctionType)]
        elif isinstance(found, FunctionType):
            yield found
            waiting += [value for _, value in _names_of(found) if _goes_along(value)]


def _unwrapped(function: Any) -> Any:
    while isinstance(function, functools.partial | MethodType):
        function = function.func if isinstance(function, functools.partial) else function.__func__
    return function


def _goes_along(value: Any) -> bool:
    if not isinstance(value, FunctionType | type):
        return False
    module = sys.modules.get(value.__module__)
    return value.__module__ == "__main__" or module is None or _is_local(module)


def _names_of(function: FunctionType) -> Iterator[tuple[str, Any]]:
    names = {name for code in _codes(function.__code__) for name in code.co_names}
    yield from ((name, function.__globals__[name]) for name in sorted(names) if name in function.__globals__)
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # a name that is not assigned yet
            continue
    yield from ((f"a default of {function.__name__}", value) for value in function.__defaults__ or ())


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _is_local(module: ModuleType) -> bool:
    origin = getattr(module, "__file__", None)
    return module.__name__ != "__main__" and isinstance(origin, str) and _is_local_file(module.__name__, origin)


def _is_local_file(name: str, origin: str) -> bool:
    if name.partition(".")[0] in OURS or not origin.endswith((".py", ".pyc")):
        return False
    path = Path(origin)
    return INSTALLED_PARTS.isdisjoint(path.parts) and not any(
        path.is_relative_to(folder) for folder in _library_folders()
    )


@functools.cache
def _library_folders() -> tuple[Path, ...]:
    names = ("stdlib", "platstdlib")
    folders = [Path(sysconfig.get_paths()[name]) for name in names]
    return tuple({folder for given in folders for folder in (given, given.resolve())})


def _refuse_hidden_imports(function: Any, name: str) -> None:
    for member in _functions_of(function):
        for code in _codes(member.__code__):
            for step in dis.get_instructions(code):
                if step.opname == "IMPORT_NAME" and _is_local_import(str(step.argval)):
                    raise BundleError(
                        f"{name} imports the local module '{step.argval}' inside a function, where a job would look for it and not find it.",
                        next_step=f"Write 'import {step.argval}' in a cell of its own, outside of the function: then it is sent along.",
                    )


def _is_local_import(name: str) -> bool:
    try:
        spec = find_spec(name) if name else None
    except (ImportError, ValueError):  # no such parent package, or a module without a spec: not ours to judge
        return False
    if spec is None or spec.origin is None or not _is_local_file(name, spec.origin):
        return False
    # A job has the home and the environment of its submitter: an editable install is found there as it is here.
    return not any(Path(spec.origin).is_relative_to(folder) for folder in _editable_folders())


@functools.cache
def _editable_folders() -> tuple[Path, ...]:
    from importlib import metadata

    records = (distribution.read_text("direct_url.json") for distribution in metadata.distributions())
    origins = (json.loads(record) for record in records if record)
    editable = (origin["url"] for origin in origins if origin.get("dir_info", {}).get("editable"))
    return tuple(Path(unquote(urlsplit(url).path)) for url in editable)


def _too_large(name: str, values: Mapping[str, Any], limit_bytes: int) -> BundleTooLarge:
    sizes = sorted(((key, _size(value)) for key, value in values.items()), key=lambda pair: -pair[1])
    largest = tuple(pair for pair in sizes[:SHOWN_LARGEST] if pair[1] > 0)
    listed = ", ".join(f"{key} ({units.size(count)})" for key, count in largest)
    return BundleTooLarge(
        f"{name} takes more than {units.size(limit_bytes)} with it. The largest: {listed or 'not known'}.",
        next_step="Read large data inside the function, for example with torpor.dataset(…).to_pandas(), instead of taking it along.",
        largest=largest,
    )


def _size(value: Any) -> int:
    import cloudpickle

    counter = _Counter()
    try:
        cloudpickle.Pickler(counter).dump(value)
    except PICKLE_ERRORS:
        return 0
    return counter.written_bytes


def _unpicklable(name: str, values: Mapping[str, Any], error: Exception) -> BundleError:
    culprits = [key for key, value in values.items() if not _is_picklable(value)]
    named = ", ".join(f"'{key}'" for key in culprits)
    what = f"it uses {named}, which cannot be sent" if culprits else "something that it uses cannot be sent"
    return BundleError(
        f"{name} cannot be sent to a job: {what} ({error}).",
        next_step="Create connections, sessions, locks and open files inside the function.",
    )


def _is_picklable(value: Any) -> bool:
    import cloudpickle

    try:
        cloudpickle.Pickler(_Counter()).dump(value)
    except PICKLE_ERRORS:
        return False
    return True
