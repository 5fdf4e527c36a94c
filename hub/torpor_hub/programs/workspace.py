"""The entry point of workspace images: a workspace's server, or the wrapper of a job, with the variables of its environment.

``workspace [server] ARGUMENTS…`` becomes the server, ``workspace job`` the wrapper. It is on the path of every start, so it
imports little.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from torpor_hub.errors import EnvironmentMismatch
from torpor_hub.processes import layering
from torpor_hub.processes.layering import Platform

ROOT = "/opt/workspace"
HOME = "/home/user"
JOB_FOLDER = "/tmp/torpor-job"  # noqa: S108 - a volume of the pod's own, or the pod's own /tmp
# Isolated: neither the user's folder nor their own packages may stand in for a module of the platform.
MODULES = {"server": "jupyterhub.singleuser", "job": "torpor.run"}
INIT = "/usr/bin/tini"
# More than a file system keeps inside of its inodes.
PROBE_BYTES = 16 * 1024


def main() -> NoReturn:
    """Become the program that the first argument names; ``server`` where it names none."""
    what, arguments = split(sys.argv[1:])
    root, home = Path(os.environ.get("TORPOR_ROOT", ROOT)), Path(os.environ.get("HOME", HOME))
    platform = layering.here()
    mend(root / "env", platform)
    environment = (
        for_job(root, home, platform, os.environ) if what == "job" else for_server(root, home, platform, os.environ)
    )
    command = [*reaper(os.getpid()), sys.executable, "-I", "-m", MODULES[what], *arguments]
    os.execve(command[0], command, environment)  # noqa: S606 - no shell is wanted


def reaper(pid: int) -> list[str]:
    """Return the command to run the program under: as a container's first process it would leave every orphan a zombie."""
    return [INIT, "--"] if pid == 1 and Path(INIT).exists() else []


def split(arguments: Sequence[str]) -> tuple[str, Sequence[str]]:
    """Return which program to become, and its arguments."""
    if arguments and arguments[0] in MODULES:
        return arguments[0], arguments[1:]
    return "server", arguments


def for_server(root: Path, home: Path, platform: Platform, inherited: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables of a workspace's server; one whose home cannot be written keeps its settings elsewhere."""
    found = {"JUPYTERHUB_ROOT_DIR": str(home)} | layering.variables(root, home, platform, inherited)
    trouble = why_not_writable(home)
    if trouble:
        print(
            f"The home {home} cannot be written ({trouble}): settings are kept until this server ends.", file=sys.stderr
        )
        return found | settings_outside_of_home(root / "runtime")
    return found


def for_job(root: Path, home: Path, platform: Platform, inherited: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables of a job's wrapper: what the runner gave, and where this image has the rest."""
    env = root / "env"
    places = {"TORPOR_PYTHON": layering.python_of(env), "TORPOR_HOME": home, "TORPOR_FOLDER": Path(JOB_FOLDER)}
    search = layering.search_path(env, None, platform, inherited.get("PATH", os.defpath))
    return {name: str(place) for name, place in places.items()} | dict(inherited) | {"PATH": search}


def mend(env: Path, platform: Platform) -> None:
    """Repair what the environment needs to be one; writes nothing where nothing is amiss, so that a wake changes nothing."""
    try:
        layering.create(env, platform)
    except (OSError, EnvironmentMismatch) as error:
        # The server runs on the platform's interpreter: it opens all the same, and its user can look.
        print(f"The environment {env} could not be repaired: {error}", file=sys.stderr)


def why_not_writable(folder: Path) -> str:
    """Return what hinders a small file in ``folder``, such as ``No space left on device``; empty where nothing does."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(PROBE_BYTES))
    except OSError as error:
        return error.strerror or type(error).__name__
    return ""


def settings_outside_of_home(folder: Path) -> dict[str, str]:
    """Return the variables that let JupyterLab open, and keep settings and layout, without a home that can be written."""
    places = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "IPYTHONDIR": "ipython",
    }
    return {name: str(folder / "home" / place) for name, place in places.items()}


if __name__ == "__main__":
    main()
