"""Environments of jobs: each digest unpacked once, read-only, below ``<state>/environments``."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from torpor_hub.domain.workspaces import Checkpoint
from torpor_hub.errors import CorruptImage, EnvironmentMismatch, RunnerError, UnsafeArchive
from torpor_hub.oci.layers import restore
from torpor_hub.oci.layout import Layout
from torpor_hub.processes import files, layering
from torpor_hub.processes.layering import Platform

PROFILE = "profile"


class Environments:
    """Gives the interpreter of an environment; never the workspace's own folder, so that neither disturbs the other."""

    def __init__(self, root: Path, layout: Layout, platform: Platform) -> None:
        self._root = root
        self._layout = layout
        self._platform = platform

    def python_for(self, checkpoint: Checkpoint | None) -> Path:
        """Return the interpreter of a checkpoint, or without one that of the profile's own, empty environment.

        The first call unpacks; others, also of other processes, wait for it.

        Raises:
            RunnerError: when the checkpoint cannot be unpacked or belongs to another Python.
        """
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = checkpoint.digest.replace(":", "-") if checkpoint else f"{PROFILE}-{self._platform.minor}"
        env, ready = self._root / name, self._root / f"{name}.ready"
        made_for = f"{self._platform.interpreter}\n{self._platform.version}\n{self._platform.site_packages}"
        with _locked(self._root / f"{name}.lock"):
            if env.is_dir() and ready.is_file() and ready.read_text() == made_for:
                return layering.python_of(env)
            try:
                self._unpack(env, checkpoint)
                python = layering.for_job(env, self._platform)
            except (CorruptImage, UnsafeArchive, EnvironmentMismatch) as error:
                raise RunnerError(f"The job's environment {name} cannot be made ready: {error}") from error
            files.write_atomically(ready, made_for.encode())
            return python

    def _unpack(self, env: Path, checkpoint: Checkpoint | None) -> None:
        if env.is_dir():
            return
        if checkpoint is None:
            layering.create(env, self._platform)
            return
        image = self._layout.read_image(checkpoint.repository, checkpoint.digest)
        restore(image.layers, partial(self._layout.open_blob, checkpoint.repository), env)


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    with file.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
