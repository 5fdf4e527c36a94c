"""Environments layered over the platform's: what a user installs lies in their own folder, the rest comes from below.

An environment is a virtual environment of the platform's base interpreter, with one ``.pth`` file that adds the platform's
packages after its own. Nothing of it is written again when it holds already what it should, so that a sleep and a wake
change nothing.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torpor_hub.errors import EnvironmentMismatch
from torpor_hub.processes import files

PTH = "_torpor.pth"
CONFIG = "pyvenv.cfg"
MARK = b"# Written by the platform at each start: runs on this environment's interpreter."
SHIMS = {
    "pip": "from pip._internal.cli.main import main",
    "pip3": "from pip._internal.cli.main import main",
    "ipython": "from IPython import start_ipython as main",
    "ipython3": "from IPython import start_ipython as main",
}
LONGEST_SHEBANG = 127
SCRIPT_HEAD_BYTES = 4096


@dataclass(frozen=True)
class Platform:
    """The interpreter and the packages that environments are layered over; ``scripts`` is the folder of its programs."""

    interpreter: Path
    version: str
    site_packages: tuple[Path, ...]
    scripts: Path

    @property
    def minor(self) -> str:
        """The version that a package folder is named by, such as ``3.11``."""
        return minor_of(self.version)


def here() -> Platform:
    """Return the platform that this process runs on."""
    paths = sysconfig.get_paths()
    return Platform(
        interpreter=Path(getattr(sys, "_base_executable", sys.executable)),
        version=".".join(str(part) for part in sys.version_info[:3]),
        site_packages=tuple(Path(path) for path in dict.fromkeys((paths["purelib"], paths["platlib"]))),
        scripts=Path(paths["scripts"]),
    )


def minor_of(version: str) -> str:
    """Return ``3.11`` of ``3.11.7``."""
    return ".".join(version.split(".")[:2])


def python_of(env: Path) -> Path:
    """Return an environment's interpreter."""
    return env / "bin" / "python"


def create(env: Path, platform: Platform) -> None:
    """Make an empty environment; one that is there is refreshed.

    Raises:
        EnvironmentMismatch: when ``env`` was made for another Python.
    """
    env.mkdir(mode=0o700, parents=True, exist_ok=True)
    refresh(env, platform)


def refresh(env: Path, platform: Platform) -> None:
    """Make ``env`` usable where it lies and on this platform, writing only what differs.

    Raises:
        EnvironmentMismatch: when it was made for another Python, whose packages this one would not see.
    """
    require_python(env, platform)
    _refresh_folders(env, platform)
    home = recorded_home(env)
    if home is not None and home != env:
        _redirect_scripts(env, home)
    write_shims(env / "bin", python_of(env))
    # Last, because it says that everything else is done for this place.
    files.write_if_changed(env / CONFIG, _config(env, platform))


def require_python(env: Path, platform: Platform) -> None:
    """Do nothing where ``env`` belongs to this platform's Python, or holds no packages yet.

    Raises:
        EnvironmentMismatch: otherwise; the text names both versions.
    """
    found = {folder.parent.name.removeprefix("python") for folder in env.glob("lib/python3.*/site-packages")}
    version = _read_config(env).get("version")
    if version is not None:
        found.add(minor_of(version))
    if found and platform.minor not in found:
        raise EnvironmentMismatch(
            f"The environment was made with Python {', '.join(sorted(found))}; the platform runs {platform.minor}. "
            "Start with the profile's environment and install the packages again, or run the platform on the earlier Python."
        )


def recorded_home(env: Path) -> Path | None:
    """Return where the environment lay when it was last refreshed; None for one that never was."""
    home = _read_config(env).get("environment")
    return Path(home) if home else None


def configure(root: Path, platform: Platform) -> None:
    """Write what a workspace's server needs beside its environment ``<root>/env``, writing only what differs.

    The kernelspec lies outside because packages overwrite the one inside, with a ``python`` that the server replaces by its
    own. The shell is no login shell because those reset PATH. ``<root>/bin`` has pip once more: where a user uninstalls it in
    the environment, the next one on PATH would be the platform's.
    """
    for folder in ("bin", "jupyter/kernels/python3", "config/labconfig", "runtime", "logs"):
        (root / folder).mkdir(mode=0o700, parents=True, exist_ok=True)
    python = python_of(root / "env")
    write_shims(root / "bin", python)
    files.write_if_changed(root / "jupyter/kernels/python3/kernel.json", _json(kernelspec(python)))
    shell = shutil.which("bash") or "/bin/sh"
    settings = {"ServerApp": {"terminado_settings": {"shell_command": [shell]}}}
    files.write_if_changed(root / "config/jupyter_server_config.json", _json(settings))
    # A workspace asks nothing of the outside by itself, and no first-time user for news.
    quiet = {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}
    files.write_if_changed(root / "config/labconfig/page_config.json", _json(quiet))


def kernelspec(python: Path) -> dict[str, object]:
    """Return the kernelspec of an environment: an absolute interpreter, which a server does not replace by its own."""
    return {
        "argv": [str(python), "-Xfrozen_modules=off", "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": "Python 3 (ipykernel)",
        "language": "python",
        "metadata": {"debugger": True},
    }


def variables(root: Path, home: Path, platform: Platform, inherited: Mapping[str, str]) -> dict[str, str]:
    """Return the whole environment of a workspace's server, and so of its kernels and terminals."""
    env = root / "env"
    kept = {
        name: value for name, value in inherited.items() if name not in ("PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP")
    }
    return kept | {
        "HOME": str(home),
        "SHELL": shutil.which("bash") or "/bin/sh",
        "PATH": search_path(env, root / "bin", platform, inherited.get("PATH", "/usr/local/bin:/usr/bin:/bin")),
        "VIRTUAL_ENV": str(env),
        "JUPYTER_PATH": f"{root / 'jupyter'}:{env / 'share/jupyter'}",
        "JUPYTER_CONFIG_PATH": str(root / "config"),
        "JUPYTER_RUNTIME_DIR": str(root / "runtime"),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }


def search_path(env: Path, shims: Path | None, platform: Platform, inherited: str) -> str:
    """Return PATH: the environment, the shims beside it, the platform, then what was inherited."""
    first = [str(folder) for folder in (env / "bin", shims, platform.scripts) if folder is not None]
    return ":".join(dict.fromkeys([*first, *filter(None, inherited.split(":"))]))


def for_job(env: Path, platform: Platform) -> Path:
    """Return the interpreter of an unpacked checkpoint after making it usable where it lies, and read-only.

    May be repeated. Scripts that named the interpreter of the workspace name this one's.

    Raises:
        EnvironmentMismatch: when the checkpoint was made with another Python.
    """
    for path in (env, *env.glob("bin"), *env.glob("lib"), *env.glob("lib/*"), *env.glob("lib/*/site-packages")):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | 0o200)
    refresh(env, platform)
    _make_read_only(env)
    return python_of(env)


def write_shims(folder: Path, python: Path) -> None:
    """Write the platform's programs that have to run on ``python`` into ``folder``.

    A program of that name that a user installed is theirs and stays.
    """
    for name, line in SHIMS.items():
        file = folder / name
        if file.is_file() and not file.is_symlink() and MARK not in file.read_bytes()[:SCRIPT_HEAD_BYTES]:
            continue
        content = shebang(python) + MARK + f"\nimport sys\n\n{line}\n\nsys.exit(main())\n".encode()
        files.write_if_changed(file, content, 0o755)


def shebang(python: Path, options: str = "") -> bytes:
    """Return a script's first lines; the kernel reads 127 bytes and no blanks in a path (as pip's own scripts do it)."""
    plain = f"#!{python}{options}\n"
    if len(plain.encode()) <= LONGEST_SHEBANG and not re.search(r"\s", str(python)):
        return plain.encode()
    return f"#!/bin/sh\n'''exec' \"{python}\"{options} \"$0\" \"$@\"\n' '''\n".encode()


def _refresh_folders(env: Path, platform: Platform) -> None:
    packages = env / "lib" / f"python{platform.minor}" / "site-packages"
    packages.mkdir(parents=True, exist_ok=True)
    (env / "bin").mkdir(exist_ok=True)
    files.link_if_changed(env / "bin/python", str(platform.interpreter))
    for name in ("python3", f"python{platform.minor}"):
        files.link_if_changed(env / "bin" / name, "python")
    lines = [f"import site; site.addsitedir({str(folder)!r})\n" for folder in platform.site_packages]
    files.write_if_changed(packages / PTH, "".join(lines).encode())


def _redirect_scripts(env: Path, home: Path) -> None:
    """Let the programs in ``bin`` that ran on the interpreter of ``home`` run on this environment's."""
    first_lines = _first_lines(home)
    for file in (env / "bin").iterdir():
        if file.is_symlink() or not file.is_file():
            continue
        content = file.read_bytes()
        match = first_lines.match(content)
        if match:
            name, options = (match[1], match[2]) if match[1] else (match[3], match[4])
            first = shebang(env / "bin" / name.decode(), options.decode())
            files.write_if_changed(file, first + content[match.end() :], file.stat().st_mode & 0o777)


def _first_lines(home: Path) -> re.Pattern[bytes]:
    """Return what ``shebang`` and the installers write for an interpreter in ``home``: its name and its options."""
    python = re.escape(str(home / "bin").encode()) + rb"/(python[0-9.]*)"
    plain = rb"#!" + python + rb"((?: [^\n]*)?)\n"
    long = rb"#!/bin/sh\n'''exec' [\"']?" + python + rb"[\"']?((?: -[^\n]*?)?) \"\$0\" \"\$@\"\n' '''\n"
    return re.compile(rb"\A(?:" + plain + rb"|" + long + rb")")


def _make_read_only(env: Path) -> None:
    for folder, _, names in os.walk(env):
        for path in (Path(folder), *(Path(folder, name) for name in names)):
            if not path.is_symlink():
                path.chmod(path.stat().st_mode & ~0o222)


def _config(env: Path, platform: Platform) -> bytes:
    entries = {
        "home": platform.interpreter.parent,
        "include-system-site-packages": "false",
        "version": platform.version,
        "environment": env,
    }
    return "".join(f"{key} = {value}\n" for key, value in entries.items()).encode()


def _read_config(env: Path) -> dict[str, str]:
    try:
        lines = (env / CONFIG).read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return {}
    pairs = (line.partition("=") for line in lines if "=" in line)
    return {key.strip(): value.strip() for key, _, value in pairs}


def _json(content: Mapping[str, object]) -> bytes:
    return json.dumps(content, indent=1).encode() + b"\n"
