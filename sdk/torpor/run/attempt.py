"""One attempt of a job: who it is, where it lives on disk, and how it ended."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping, MutableMapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

TOKEN = "TORPOR_JOB_TOKEN"  # noqa: S105 - the variable's name, not a token
LOST = "lost"
GRACE_S = 5.0
# The kubelet keeps 4096 bytes of what a container said last; a character takes up to six of them.
LAST_BYTES, LAST_MESSAGE, LAST_TRACEBACK = 4096, 250, 400


@dataclass(frozen=True)
class Attempt:
    """What the environment variables of the wrapper say.

    ``folder`` holds the wrapper's records; the code runs in ``folder/scratch``, so that it cannot overwrite them by accident.
    ``last_words`` is a small file that outlives the folder, where there is one.
    """

    url: str
    job: str
    number: int
    rank: int
    token: str
    python: Path
    folder: Path
    home: Path
    grace_s: float
    last_words: Path | None = None

    @classmethod
    def from_environ(cls, environ: MutableMapping[str, str]) -> Attempt:
        """Return the attempt and take its token out of ``environ``, so that no child inherits it.

        Raises:
            KeyError: when a variable is missing.
        """
        name = environ["TORPOR_ATTEMPT"]
        return cls(
            url=environ["TORPOR_URL"].rstrip("/") + "/",
            job=environ["TORPOR_JOB"],
            number=int(name.rpartition("-a")[2]),
            rank=int(environ.get("TORPOR_RANK", "0")),
            token=environ.pop(TOKEN),
            python=Path(environ["TORPOR_PYTHON"]),
            folder=Path(environ["TORPOR_FOLDER"]),
            home=Path(environ["TORPOR_HOME"]),
            grace_s=float(environ.get("TORPOR_GRACE_S", GRACE_S)),
            last_words=Path(environ["TORPOR_LAST_WORDS"]) if environ.get("TORPOR_LAST_WORDS") else None,
        )

    @property
    def name(self) -> str:
        """The attempt's name, ``job-…-a1``."""
        return f"{self.job}-a{self.number}"

    @property
    def scratch(self) -> Path:
        """The folder in which the code starts."""
        return self.folder / "scratch"

    @property
    def log(self) -> Path:
        """Standard output and standard error of the code, merged."""
        return self.folder / "log"

    @property
    def bundle(self) -> Path:
        """The code as it was submitted."""
        return self.folder / "bundle"

    @property
    def result(self) -> Path:
        """What the code returned or raised, pickled by the child."""
        return self.folder / "result"

    def write(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a record into the folder; a reader finds the old one or the new one, never a part."""
        partial = self.folder / f".{name}.{os.getpid()}"
        partial.write_text(json.dumps(content))
        partial.replace(self.folder / name)

    def write_end(self, outcome: Outcome, *, delivered: bool) -> None:
        """Record how the code ended, and whether the api has heard it."""
        if self.last_words is not None:
            said = {"delivered": delivered, "result": self.result.exists()}
            with contextlib.suppress(OSError):
                self.last_words.write_bytes(outcome.in_short(said))
        self.write("exit.json", {**outcome.to_json(), "ended_at": time.time(), "delivered": delivered})

    def read(self, name: str) -> dict[str, Any] | None:
        """Return a record of the folder, or None where there is none (or what is there is no record)."""
        try:
            content = json.loads((self.folder / name).read_bytes())
        except (OSError, ValueError):
            return None
        return content if isinstance(content, dict) else None


@dataclass(frozen=True)
class Outcome:
    """How the code ended. ``reason`` is the wire's, or ``lost``: ended from outside, to be run again."""

    exit_code: int | None
    reason: str = ""
    message: str = ""
    exception: Mapping[str, str] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the outcome as JSON values."""
        return asdict(self)

    def in_short(self, more: Mapping[str, Any]) -> bytes:
        """Return the outcome and ``more`` as JSON of at most 4096 bytes: of long texts only the part that tells most."""
        shown = {
            name: text[-LAST_TRACEBACK:] if name == "traceback" else text[:LAST_MESSAGE]
            for name, text in (self.exception or {}).items()
        }
        whole = {**asdict(self), **more, "message": self.message[:LAST_MESSAGE], "exception": shown or None}
        content = json.dumps(whole, ensure_ascii=False).encode(errors="replace")
        return content if len(content) <= LAST_BYTES else json.dumps({**whole, "exception": None}).encode()
