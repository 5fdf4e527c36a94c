"""What `verify` checks inside of an image. Runs there, on the image's own interpreter and as its user; needs nothing else.

Each check raises with a sentence where something is not as it has to be. The labels come as the first argument, because a
container does not see its own.
"""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

TORPOR = Path("/opt/torpor")
PYTHON = TORPOR / "bin/python"
USER_ID = 1000
# What a build reads from and writes to beside the image.
BUILD_FOLDERS = ("/run/secrets", "/mnt", "/var/cache/uv", "/tmp")  # noqa: S108
# Where docker keeps an empty folder in the image after it has mounted something there for a build.
MOUNT_POINTS = ("/mnt/context", "/run/secrets/network", "/run/secrets/certificates")
PREFIX = "org.torpor."


class Wrong(Exception):
    """Something in the image is not as it has to be."""


Check = Callable[[dict[str, str]], str]


def main(name: str, checks: Sequence[Check]) -> int:
    """Run the checks of the image ``name`` and print what each found; return 1 at the first that fails."""
    labels = {key.removeprefix(PREFIX): value for key, value in json.loads(sys.argv[1]).items()}
    require(labels.get("image") == name, f"The label {PREFIX}image says '{labels.get('image')}'.")
    for check in checks:
        started = time.monotonic()
        try:
            found = check(labels)
        except (Wrong, OSError, subprocess.SubprocessError) as error:
            print(f"{check.__name__}: {error}", flush=True)
            return 1
        print(f"  {check.__name__}: {found} ({time.monotonic() - started:.1f} s)", flush=True)
    return 0


def require(holds: object, sentence: str) -> None:
    """Raise Wrong with the sentence unless it holds."""
    if not holds:
        raise Wrong(sentence)


def output(*command: str | Path, environment: dict[str, str] | None = None) -> str:
    """Return what a command prints on both streams.

    Raises:
        Wrong: when it fails.
    """
    words = [str(word) for word in command]
    ended = subprocess.run(
        words, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    said = f"{ended.stdout}{ended.stderr}".strip()
    require(ended.returncode == 0, f"`{' '.join(words)}` ended with {ended.returncode}: {said}")
    return said


def versions(labels: dict[str, str]) -> str:
    """The labels tell the versions of Python and of the platform."""
    import torpor_hub

    minor = f"{sys.version_info.major}.{sys.version_info.minor}"
    require(sys.executable == str(PYTHON), f"This runs on {sys.executable}.")
    require(labels.get("python") == minor, f"Python is {minor}, the label says {labels.get('python')}.")
    require(
        labels.get("platform") == torpor_hub.__version__,
        f"Torpor is {torpor_hub.__version__}, not {labels.get('platform')}.",
    )
    return f"Torpor {torpor_hub.__version__} on Python {sys.version.split()[0]}"


def user(labels: dict[str, str]) -> str:
    """The image's user is 1000, by name, at home."""
    del labels
    entry = pwd.getpwuid(os.getuid())
    require(os.getuid() == os.getgid() == USER_ID, f"The user is {os.getuid()}:{os.getgid()}.")
    require(
        entry.pw_name == "user" and os.environ["HOME"] == entry.pw_dir == str(Path.cwd()),
        f"At home: {entry}, {Path.cwd()}.",
    )
    require(Path("/usr/bin/tini").exists(), "There is no tini.")
    return f"{entry.pw_name} {os.getuid()}:{os.getgid()} in {entry.pw_dir}"


def platform_is_roots(labels: dict[str, str]) -> str:
    """Everything of the platform is root's, readable for all and writable for nobody else."""
    del labels
    return owned(TORPOR, 0, writable_by_others=False)


def owned(folder: Path, user_id: int, *, writable_by_others: bool = True) -> str:
    """Return how many files ``folder`` has.

    Raises:
        Wrong: when one is another's, or where others may write or may not read.
    """
    count = 0
    for parent, folders, files in os.walk(folder):
        for path in (Path(parent), *(Path(parent, name) for name in (*folders, *files))):
            found, count = path.lstat(), count + 1
            require(found.st_uid == found.st_gid == user_id, f"{path} belongs to {found.st_uid}:{found.st_gid}.")
            if not path.is_symlink() and not writable_by_others:
                require(not found.st_mode & 0o022, f"{path} can be written: {found.st_mode:o}.")
                require(found.st_mode & 0o004, f"{path} cannot be read: {found.st_mode:o}.")
    require(count > 1, f"{folder} is empty.")
    return f"{count} in {folder}"


def nothing_of_the_builder(labels: dict[str, str]) -> str:
    """Neither the index of packages nor its certificates stayed."""
    del labels
    left = [path for path in left_behind(Path("/")) if not str(path).startswith("/mnt/torpor-")]
    require(not left, f"Left behind: {', '.join(map(str, left))}.")
    found = [
        name for name in os.environ if name.startswith(("UV_", "PIP_")) and name != "PIP_DISABLE_PIP_VERSION_CHECK"
    ]
    require(not found, f"Settings of the builder: {', '.join(found)}.")
    return "nothing"


def left_behind(root: Path) -> list[Path]:
    """Return what lies in the folders of a build below ``root``; the empty folders of its mounts are nothing."""
    found = (path for name in BUILD_FOLDERS for path in _entries(root / name[1:]))
    empty = {root / name[1:] for name in MOUNT_POINTS}
    return [
        path for path in found if path not in empty or not path.is_dir() or path.is_symlink() or any(path.iterdir())
    ]


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() and os.access(folder, os.R_OK) else []
