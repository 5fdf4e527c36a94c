"""Build the platform's images: ``python images/build.py [NAME…]``, with buildah, podman or docker.

Debian's root file system, Debian's packages, the packages of each lock file and Torpor itself are layers of their own, each kept
under the key of what it was made from. See docs/reference/images.md.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from images import engines, plan, rootfs, sources  # noqa: E402 - found only now where this is run by its path

KNOWN_FAILURES = (engines.EngineFailed, rootfs.RootFailed, sources.SourcesFailed)
# Of each layer, the one of now and the one before it: going back costs nothing.
KEPT = 2
# What `verify` reads: the checks, and the stand-in for the api that a job reports to.
MOUNTS = {
    ROOT / "images": "/mnt/torpor-images",
    ROOT / "tests/support/job_api.py": "/mnt/torpor-support/job_api.py",
}


@dataclass(frozen=True)
class Built:
    """An image as it came out: its name in the registry or in the engine, and what it cost. Sizes are unpacked."""

    reference: str
    digest: str
    size_bytes: int
    seconds: float
    cached: bool


class Builder:
    """Builds steps, each once, and says of each what it did."""

    def __init__(self, engine: engines.Podman, made_from: plan.Sources, cache: Path, *, again: bool) -> None:
        self._engine = engine
        self._again = again
        self._sources = made_from
        self._cache = cache
        self._keys: dict[str, str] = {}

    def begin(self, base: str, mirror: str) -> None:
        """Make the root image: from the archive or the image ``base``, or Debian's where it is empty."""
        if base and not Path(base).is_file():
            self._adopt(base)
            return
        started = time.monotonic()
        archive = Path(base) if base else rootfs.debian(self._cache, mirror)
        dockerfile = self._sources.images / "root.Dockerfile"
        self._make(plan.Step(plan.ROOT_STEP, dockerfile, "", {"root.tar": archive}), "", started)

    def image(self, name: str) -> bool:
        """Build an image with the layers that it lies on; return whether all of it was there."""
        there = True
        for step in plan.steps_of(plan.IMAGES[name], self._sources):
            if step.name not in self._keys:
                there = self._make(step, self._keys[step.base], time.monotonic()) and there
        return there

    def tag_of(self, name: str) -> str:
        """Return the name by which the engine knows an image that was built."""
        return f"{engines.LOCAL}/{name}:{self._keys[name]}"

    def prune(self) -> None:
        """Remove what was built before the last change of each layer."""
        for name in self._keys:
            self._engine.prune(f"{engines.LOCAL}/{name}", KEPT)

    def _adopt(self, base: str) -> None:
        if not self._engine.exists(base):
            self._engine.pull(base)
        self._keys[plan.ROOT_STEP] = self._engine.image_id(base).removeprefix("sha256:")[: plan.KEY_LENGTH]
        self._engine.tag(base, self.tag_of(plan.ROOT_STEP))
        _say(plan.ROOT_STEP, f"the image {base}")

    def _make(self, step: plan.Step, base_key: str, started: float) -> bool:
        self._keys[step.name] = plan.key(step, base_key)
        tag = self.tag_of(step.name)
        there = not self._again and self._engine.exists(tag)
        if not there:
            arguments = {**step.arguments, **({"BASE": self.tag_of(step.base)} if step.base else {})}
            with sources.context_of(step, self._cache) as context, sources.secrets(self._cache, os.environ) as secrets:
                self._engine.build(tag, step.dockerfile, context, arguments, secrets)
        size = self._engine.size_bytes(tag) / 1e6
        _say(
            step.name,
            f"{'kept' if there else 'built'}, {time.monotonic() - started:.1f} s, {size:,.0f} MB with what lies below",
        )
        return there


def arguments_of(words: Sequence[str]) -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(prog="images/build.py", description="Build the platform's images.")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(plan.IMAGES)}; all where none is named"
    )
    parser.add_argument(
        "--base", default="", help="a root file system as .tar, or an image; Debian by debootstrap where absent"
    )
    parser.add_argument("--mirror", default=rootfs.MIRROR, help="of Debian, for debootstrap")
    parser.add_argument("--engine", default="", choices=("", *engines.KNOWN), help="the first that works where absent")
    parser.add_argument("--registry", default="", metavar="HOST/PREFIX", help="push there")
    parser.add_argument("--insecure", action="store_true", help="the registry speaks plain HTTP")
    parser.add_argument("--tag", default="dev", help="the tag of the images that are pushed and archived")
    parser.add_argument("--cache", default=os.environ.get("XDG_CACHE_HOME", "~/.cache") + "/torpor-images", type=Path)
    parser.add_argument(
        "--archive", metavar="DIR", type=Path, help="write NAME.tar there, for docker, podman and containerd"
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="write what was built there")
    parser.add_argument("--again", action="store_true", help="build what is there too, with Debian's fixes of today")
    parser.add_argument(
        "--verify", action="store_true", help="run each image's `verify` inside of it before it is pushed"
    )
    return parser.parse_args(words)


def engine_of(asked: str, log: Path) -> engines.Podman:
    """Return the engine that was asked for, else the first that answers; where none does, buildah is installed.

    Raises:
        EngineFailed: when the one that was asked for does not answer.
        RootFailed: when none answers, and buildah cannot be installed.
    """
    if not asked and not engines.answering(log):
        # A client whose daemon does not run is on many machines.
        rootfs.install_missing(("buildah", "runc"))
    return engines.choose(asked, log)


def build(asked: argparse.Namespace, engine: engines.Podman, cache: Path) -> dict[str, Built]:
    """Build, verify, push and archive what was asked for, and return what came out."""
    started = time.monotonic()
    made_from = sources.prepare(ROOT, cache)
    _say("torpor", f"wheel, {time.monotonic() - started:.1f} s")
    builder = Builder(engine, made_from, cache, again=asked.again)
    builder.begin(asked.base, asked.mirror)
    built = {name: _deliver(name, builder, engine, asked) for name in plan.order(asked.names)}
    builder.prune()
    return built


def _deliver(name: str, builder: Builder, engine: engines.Podman, asked: argparse.Namespace) -> Built:
    started = time.monotonic()
    cached = builder.image(name)
    tag = builder.tag_of(name)
    reference = f"{asked.registry}/{name}:{asked.tag}" if asked.registry else f"localhost/torpor/{name}:{asked.tag}"
    if asked.verify:
        _say(name, engine.run(tag, verify_command(name, engine.labels(tag)), MOUNTS).strip())
    digest = ""
    if asked.registry:
        before = time.monotonic()
        digest = engine.push(tag, reference, insecure=asked.insecure)
        _say(name, f"pushed, {time.monotonic() - before:.1f} s, {reference}@{digest}")
    if asked.archive:
        asked.archive.mkdir(parents=True, exist_ok=True)
        engine.archive(tag, reference, asked.archive / f"{name}.tar")
    return Built(reference, digest, engine.size_bytes(tag), round(time.monotonic() - started, 1), cached)


def verify_command(name: str, labels: dict[str, str]) -> list[str]:
    """Return the command that checks an image from inside; the labels go along, because a container does not see them."""
    return ["/opt/torpor/bin/python", "-I", f"{MOUNTS[ROOT / 'images']}/{name}/verify", json.dumps(labels)]


@contextmanager
def alone() -> Iterator[None]:
    """Hold off other builds of the same user while the block runs: they share the engine's images, and each removes old ones."""
    with (Path(tempfile.gettempdir()) / f"torpor-images-{os.getuid()}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("torpor", "another build runs, this one waits for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _say(name: str, what: str) -> None:
    print(f"{name}: {what}", flush=True)


def main(words: Sequence[str]) -> int:
    """Build what the command line says; return the exit status."""
    asked = arguments_of(words)
    cache = asked.cache.expanduser().resolve()
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        plan.order(asked.names)
        engine = engine_of(asked.engine, cache / "build.log")
        with alone():
            built = build(asked, engine, cache)
    except (*KNOWN_FAILURES, KeyError) as error:
        print(error.args[0], file=sys.stderr)
        return 1
    if asked.json:
        asked.json.write_text(json.dumps({name: asdict(each) for name, each in built.items()}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
