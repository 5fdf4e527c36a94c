"""Runs a submitted function on the environment's interpreter. Started by its path: needs nothing of torpor there.

The folder given as argument holds ``task.json`` and ``bundle``; left behind are ``result`` (a cloudpickle of ``{"value": …}``
or ``{"exception": …, "traceback": "…"}``, the exception as text where it cannot be pickled) and ``outcome.json``.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import sys
import traceback
from collections.abc import Callable
from inspect import Parameter, signature
from pathlib import Path
from types import TracebackType
from typing import Any

MIB = 1024**2
MOST_RESULT_BYTES = 64 * MIB
SMALLEST_HEAP_MIB = 512
SHARE_OF_HEAP = 1 / 1.4


class EnvironmentMismatch(Exception):
    """The environment cannot run what was submitted; the text says why and what to do."""


class Caught:
    """Holds back what user code raises, so that it can be reported. ``SystemExit`` and signals pass."""

    error: BaseException | None = None

    def __enter__(self) -> Caught:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> bool:
        self.error = error
        return isinstance(error, Exception)


def main() -> int:
    """Run the function; return 0, or 1 when it raised."""
    folder = Path(sys.argv[1])
    task = json.loads((folder / "task.json").read_bytes())
    value = None
    with Caught() as caught:
        value = run(task, (folder / "bundle").read_bytes(), Path.cwd())
    content, error = pack(value, caught.error, task.get("result_bytes") or MOST_RESULT_BYTES)
    publish(folder / "result", content)
    outcome: dict[str, Any] = {"type": "exception" if error else "value", "exception": None}
    if error:
        outcome["exception"] = described = describe(error)
        sys.stderr.write(described["traceback"])
    publish(folder / "outcome.json", json.dumps(outcome).encode())
    return 1 if error else 0


def run(task: dict[str, Any], bundle: bytes, scratch: Path) -> object:
    """Return what the submitted function returns."""
    check_versions(task["code"])
    function, args, kwargs = unpack(bundle, task["code"])
    if task["kind"] != "spark" or not wants_spark(function) or "spark" in kwargs:
        return function(*args, **kwargs)
    session = spark_session(task, scratch)
    try:
        return function(*args, **kwargs, spark=session)
    finally:
        session.stop()


def check_versions(code: dict[str, Any]) -> None:
    """Raise EnvironmentMismatch unless this interpreter can load what the submitter's wrote."""
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if code.get("python") and code["python"] != here:
        raise EnvironmentMismatch(
            f"The function was submitted from Python {code['python']}, but the job's environment has Python {here}: a function "
            f"runs only on the minor version that it came from. Submit it from a workspace with Python {here}."
        )
    import cloudpickle

    wanted, found = code.get("cloudpickle") or cloudpickle.__version__, cloudpickle.__version__
    if wanted.split(".")[0] != found.split(".")[0]:
        raise EnvironmentMismatch(
            f"The function was packed by cloudpickle {wanted}, but the job's environment has {found}. Install "
            f"cloudpickle {wanted.split('.')[0]} in the workspace and submit again."
        )


def unpack(bundle: bytes, code: dict[str, Any]) -> tuple[Callable[..., object], tuple[Any, ...], dict[str, Any]]:
    """Return function, arguments and keywords from the bundle."""
    try:
        content = pickle.loads(bundle)  # noqa: S301 - the submitter's own code
    except ModuleNotFoundError as error:
        raise EnvironmentMismatch(
            f"'{code.get('name')}' needs the module '{error.name}', which the job's environment does not have. "
            f"Install it in the workspace and submit again."
        ) from error
    return content["function"], tuple(content.get("args", ())), dict(content.get("kwargs", {}))


def wants_spark(function: Callable[..., object]) -> bool:
    """Return whether ``function`` has a parameter ``spark``."""
    try:
        parameter = signature(function).parameters.get("spark")
    except (TypeError, ValueError):
        return False
    return parameter is not None and parameter.kind in (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)


def spark_session(task: dict[str, Any], scratch: Path) -> Any:
    """Return a Spark session on this machine with the job's cores and memory; the heap leaves room for Python.

    A part of a core counts as one: two threads use one and a half cores, one thread does not.

    Source of the share: Spark's own overhead factor of 0.4 for Python drivers.
    """
    from pyspark.sql import SparkSession

    amount = task["amount"]
    cores = max(1, math.ceil(amount["cpu_milli"] / 1000))
    heap_mib = max(SMALLEST_HEAP_MIB, int(amount["memory_bytes"] / MIB * SHARE_OF_HEAP))
    settings = {
        "spark.app.name": task.get("name") or task["code"].get("name") or task["job"],
        "spark.driver.memory": f"{heap_mib}m",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.warehouse.dir": str(scratch / "spark-warehouse"),
        "spark.sql.shuffle.partitions": str(max(2, 2 * cores)),
    }
    return SparkSession.builder.master(f"local[{cores}]").config(map=settings).getOrCreate()


def pack(value: object, error: BaseException | None, most_bytes: int) -> tuple[bytes, BaseException | None]:
    """Return the pickled result, and the error that it tells of; a value that cannot be pickled is an error too."""
    if error is None:
        content, trouble = dump({"value": value})
        if content is not None and len(content) <= most_bytes:
            return content, None
        error = unsendable(value, trouble, most_bytes)
    said = describe(error)
    told = {"exception": error, "traceback": said["traceback"]}
    content, _ = dump(told) if survives(error) else (None, None)
    if content is None:
        content = pickle.dumps({**told, "exception": f"{said['type']}: {said['message']}"}, protocol=5)
    return content, error


def unsendable(value: object, trouble: BaseException | None, most_bytes: int) -> Exception:
    """Return the error that stands for a return value which stays behind."""
    if trouble is not None:
        return TypeError(f"The function returned {type(value).__name__}, which cannot be pickled: {trouble}")
    return ValueError(
        f"The function returned more than the {most_bytes // MIB} MiB that can be sent back. Write it to your home or save "
        f"it as a dataset, and return its name."
    )


def dump(content: object) -> tuple[bytes | None, BaseException | None]:
    """Return the cloudpickle of ``content``, or what stood in its way: an object may raise anything while it is pickled."""
    packed = None
    with Caught() as caught:
        import cloudpickle

        packed = cloudpickle.dumps(content, protocol=5)
    return packed, caught.error


def survives(error: BaseException) -> bool:
    """Return whether an exception can be loaded again; many with arguments of their own cannot."""
    with Caught() as caught:
        content, _ = dump(error)
        return content is not None and isinstance(pickle.loads(content), BaseException)  # noqa: S301 - our own
    return caught.error is None


def describe(error: BaseException) -> dict[str, str]:
    """Return type, message and traceback as text; frames of this file are left out."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename == __file__:
        frames = frames.tb_next
    if isinstance(error, EnvironmentMismatch):
        text = f"{error}\n"
    else:
        text = "".join(traceback.TracebackException(type(error), error, frames, compact=True).format())
    return {"type": type(error).__qualname__, "message": str(error), "traceback": text}


def publish(file: Path, content: bytes) -> None:
    """Write a file at once."""
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    partial.write_bytes(content)
    partial.replace(file)


if __name__ == "__main__":
    sys.exit(main())
