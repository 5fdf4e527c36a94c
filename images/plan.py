"""What is built from what: the images of the platform as steps, each with the key of everything that it is made from.

A step whose image exists already under its key is not built again. Nothing of Torpor itself is part of a step before the last
one, so that a change of its code repeats that alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

KEY_LENGTH = 20
ROOT_STEP = "root"


@dataclass(frozen=True)
class Image:
    """An image of the platform. ``above`` names the one whose packages lie below its own; ``files`` its folder's own scripts."""

    name: str
    debian: tuple[str, ...] = ()
    above: str = ""
    node: bool = False
    files: tuple[str, ...] = ()


# What people expect in a terminal, and what pip needs for packages from a repository.
TERMINAL = ("bash", "curl", "git", "less", "nano-tiny", "openssh-client", "procps", "unzip")
WORKSPACE_FILE = "workspace/make-workspace"

IMAGES = {
    image.name: image
    for image in (
        Image("platform", node=True, files=("platform/install-proxy",)),
        Image("agent"),
        Image("workspace", debian=TERMINAL, files=(WORKSPACE_FILE,)),
        Image(
            "workspace-spark",
            debian=TERMINAL,
            above="workspace",
            files=(WORKSPACE_FILE, "workspace-spark/install-java"),
        ),
    )
}


@dataclass(frozen=True)
class Sources:
    """Where the steps find what they are made from: the checkout, and what was built from it before."""

    root: Path
    wheel: Path
    uv: Path
    node_modules: Path
    python: str
    platform: str

    @property
    def images(self) -> Path:
        """The folder of Dockerfiles."""
        return self.root / "images"

    @property
    def locks(self) -> Path:
        """The folder of the images' lock files."""
        return self.root / "requirements" / "images"


@dataclass(frozen=True)
class Step:
    """One build: ``context`` maps names to the files and folders that the Dockerfile finds under them."""

    name: str
    dockerfile: Path
    base: str
    context: Mapping[str, Path] = field(default_factory=dict)
    arguments: Mapping[str, str] = field(default_factory=dict)


def order(names: Iterable[str]) -> list[str]:
    """Return the images to build, in the order in which they are named above.

    Raises:
        KeyError: for a name that is no image.
    """
    asked = set(names) or set(IMAGES)
    unknown = sorted(asked - set(IMAGES))
    if unknown:
        raise KeyError(f"There is no image {', '.join(unknown)}. There are: {', '.join(IMAGES)}.")
    return [name for name in IMAGES if name in asked]


def steps_of(image: Image, sources: Sources) -> list[Step]:
    """Return the steps from the root file system to ``image``; images that share one name it alike."""
    chain = [_system("system", ROOT_STEP, (), sources)]
    if image.debian:
        chain.append(_system("terminal", "system", image.debian, sources))
    below = chain[-1].name
    for each in (IMAGES[image.above], image) if image.above else (image,):
        chain.append(_dependencies(each, below, sources))
        below = chain[-1].name
    return [*chain, _final(image, below, sources)]


def _system(name: str, base: str, packages: tuple[str, ...], sources: Sources) -> Step:
    script = {"install-system": sources.images / "install-system"}
    return Step(name, sources.images / "system.Dockerfile", base, script, {"PACKAGES": " ".join(packages)})


def _dependencies(image: Image, base: str, sources: Sources) -> Step:
    context = {
        "install-dependencies": sources.images / "install-dependencies",
        "lock.txt": sources.locks / f"{image.name}.txt",
        "build.txt": sources.locks / "build.txt",
    }
    if image.node:
        context["node/node_modules"] = sources.node_modules
    dockerfile = sources.images / "dependencies.Dockerfile"
    return Step(f"{image.name}-packages", dockerfile, base, {**context, "uv": sources.uv})


def _final(image: Image, base: str, sources: Sources) -> Step:
    scripts = [sources.images / "install-torpor", *(sources.images / file for file in image.files)]
    context = {path.name: path for path in (*scripts, sources.wheel)}
    arguments = {"PLATFORM": sources.platform, "PYTHON": sources.python}
    return Step(image.name, sources.images / image.name / "Dockerfile", base, {**context, "uv": sources.uv}, arguments)


def key(step: Step, base_key: str) -> str:
    """Return the key of what ``step`` makes over the base of that key: names, contents and rights of all that it reads."""
    total = hashlib.sha256(base_key.encode())
    for name, value in sorted(step.arguments.items()):
        total.update(f"\0{name}={value}".encode())
    for name, path in sorted({"Dockerfile": step.dockerfile, **step.context}.items()):
        total.update(f"\0{name} {content_digest(path)}".encode())
    return total.hexdigest()[:KEY_LENGTH]


def content_digest(path: Path) -> str:
    """Return the digest of a file's content, or of the names, contents and links of a folder's."""
    if not path.is_dir():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    total = hashlib.sha256()
    for each in _tree(path):
        content = str(each.readlink()) if each.is_symlink() else content_digest(each)
        total.update(f"{each.relative_to(path)} {content}\n".encode())
    return total.hexdigest()


def _tree(folder: Path) -> Sequence[Path]:
    return sorted(each for each in folder.rglob("*") if each.is_symlink() or each.is_file())
