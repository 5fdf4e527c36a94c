"""The programs that build images: podman, buildah or docker, behind the few verbs that are needed of them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LOCAL = "localhost/torpor-build"
LAST_LINES = 40
# Smaller than gzip, and several times faster both to write and to unpack.
COMPRESSION = ("--compression-format", "zstd")


class EngineFailed(Exception):
    """A command of the engine did not end well; the text ends with what it said last."""


@dataclass(frozen=True)
class Secrets:
    """Files that a build reads and that never become part of an image."""

    network: Path
    certificates: Path


class Podman:
    """Podman, and what the others have in common with it. Everything that the program prints is added to ``log``."""

    name = "podman"
    # What is there under its key is never built, so a build that is asked for is meant: with Debian's fixes of today.
    build_command: tuple[str, ...] = ("build", "--no-cache", "--format", "oci", "--pull=never")

    # Not everybody may raise a limit over this process's own, as the engines do by themselves.
    limits: tuple[str, ...] = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096")
    listing = "{{.Repository}}:{{.Tag}}"
    settings: Mapping[str, str] = {}

    def __init__(self, log: Path) -> None:
        self._log = log

    def answers(self) -> bool:
        """Return whether the program works on this machine."""
        return self._run("info").returncode == 0

    def build(self, tag: str, dockerfile: Path, context: Path, arguments: Mapping[str, str], secrets: Secrets) -> None:
        """Build ``dockerfile`` over ``context`` and name the image ``tag``.

        Raises:
            EngineFailed: with the last lines of the build.
        """
        options = [f"--build-arg={name}={value}" for name, value in arguments.items()]
        options += [
            f"--secret=id=network,src={secrets.network}",
            f"--secret=id=certificates,src={secrets.certificates}",
        ]
        self.call(*self.build_command, *options, "-t", tag, "-f", str(dockerfile), str(context))

    def exists(self, tag: str) -> bool:
        """Return whether there is an image of that name."""
        return self._run("image", "inspect", tag).returncode == 0

    def tag(self, source: str, target: str) -> None:
        """Give an image another name."""
        self.call("tag", source, target)

    def prune(self, repository: str, keep: int) -> None:
        """Remove all but the newest images of a repository; one that is in use stays."""
        listed = self.call("images", "--filter", f"reference={repository}", "--format", self.listing).split()
        for tag in listed[keep:]:
            self._run("rmi", tag)

    def pull(self, reference: str) -> None:
        """Bring an image from its registry."""
        self.call("pull", reference)

    def image_id(self, tag: str) -> str:
        """Return the digest of an image's configuration, without its algorithm."""
        return str(self._inspect(tag)["Id"]).removeprefix("sha256:")

    def labels(self, tag: str) -> dict[str, str]:
        """Return an image's labels."""
        return dict(self._inspect(tag)["Config"].get("Labels") or {})

    def size_bytes(self, tag: str) -> int:
        """Return an image's size when it is unpacked."""
        return int(self._inspect(tag)["Size"])

    def push(self, tag: str, reference: str, *, insecure: bool) -> str:
        """Copy an image into a registry and return its digest there."""
        digest = self._log.with_name("digest")
        trust = ("--tls-verify=false",) if insecure else ()
        self.call("push", "--digestfile", str(digest), *COMPRESSION, *trust, tag, f"docker://{reference}")
        return digest.read_text().strip()

    def archive(self, tag: str, reference: str, file: Path) -> None:
        """Write an image, named ``reference``, into an archive that docker, podman and containerd load."""
        file.unlink(missing_ok=True)
        self.call("push", tag, f"docker-archive:{file}:{reference}")

    def run(self, tag: str, command: Sequence[str], mounts: Mapping[Path, str]) -> str:
        """Run a command in a new container of the image, as its user, with folders mounted read-only; return what it prints.

        Raises:
            EngineFailed: when it fails; the text ends with what it printed.
        """
        options = ("--rm", "--network", "none", *self.limits, *_volumes(mounts), "--entrypoint", command[0])
        return self.call("run", *options, tag, *command[1:])

    def call(self, *arguments: str) -> str:
        """Run the engine and return what it printed.

        Raises:
            EngineFailed: when it fails.
        """
        ended = self._run(*arguments)
        if ended.returncode:
            said = "\n".join((ended.stdout + ended.stderr).splitlines()[-LAST_LINES:])
            command = " ".join([self.name, *arguments[:2]])
            raise EngineFailed(f"{said}\n\n`{command} …` ended with {ended.returncode}. All of its output: {self._log}")
        return ended.stdout

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [self.name, *arguments]
        ended = subprocess.run(
            command,
            env={**os.environ, **self.settings},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        with self._log.open("a") as log:
            log.write(f"\n$ {' '.join(command)}\n{ended.stdout}{ended.stderr}")
        return ended

    def _inspect(self, tag: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.call("image", "inspect", tag))[0]
        return found


class Buildah(Podman):
    """Buildah with isolation by chroot, which needs no rights over namespaces and cgroups: it works inside of a container too."""

    name = "buildah"
    isolation = ("--isolation", "chroot")
    listing = "{{.Name}}:{{.Tag}}"
    build_command = ("bud", *isolation, "--runtime", "runc", *Podman.limits, "--format", "oci", "--pull-never")

    def exists(self, tag: str) -> bool:
        """Return whether there is an image of that name."""
        return self._run("inspect", "--type", "image", tag).returncode == 0

    def run(self, tag: str, command: Sequence[str], mounts: Mapping[Path, str]) -> str:
        """Run a command in a new container of the image; it shares the network of this machine."""
        container = self.call("from", "--pull-never", tag).strip().splitlines()[-1]
        try:
            return self.call("run", *self.isolation, *_volumes(mounts), container, "--", *command)
        finally:
            self.call("rm", container)

    def _inspect(self, tag: str) -> dict[str, Any]:
        found = json.loads(self.call("inspect", "--type", "image", tag))
        size = parse_size(json.loads(self.call("images", "--json", tag))[0]["size"])
        return {"Id": found["FromImageID"], "Config": found["OCIv1"]["config"], "Size": size}


class Docker(Podman):
    """Docker with BuildKit, which is a part of it, or since version 23 of its plugin buildx. Which registries it trusts is a
    setting of its daemon.
    """

    name = "docker"
    # The network is this machine's, as with buildah: an index may listen on it alone.
    build_command = ("build", "--no-cache", "--network", "host", "--progress", "plain")
    settings: Mapping[str, str] = {"DOCKER_BUILDKIT": "1"}

    def answers(self) -> bool:
        """Return whether the daemon answers, and the client has what it builds with."""
        return super().answers() and self._run("build", "--help").returncode == 0

    def push(self, tag: str, reference: str, *, insecure: bool) -> str:
        """Copy an image into a registry and return its digest there."""
        del insecure
        self.call("tag", tag, reference)
        self.call("push", reference)
        repository = reference.rpartition(":")[0]
        digests = (each.partition("@") for each in self._inspect(reference)["RepoDigests"])
        return str(next(digest for name, _, digest in digests if name == repository))

    def archive(self, tag: str, reference: str, file: Path) -> None:
        """Write an image, named ``reference``, into an archive."""
        self.call("tag", tag, reference)
        self.call("save", "-o", str(file), reference)


# In the order of preference: the first two need no daemon.
KNOWN: dict[str, type[Podman]] = {"buildah": Buildah, "podman": Podman, "docker": Docker}


def answering(log: Path) -> list[Podman]:
    """Return the engines that answer on this machine, the preferred one first."""
    known = (engine(log) for name, engine in KNOWN.items() if shutil.which(name))
    return [engine for engine in known if engine.answers()]


def choose(asked: str, log: Path) -> Podman:
    """Return the engine that was asked for, else the first that answers on this machine.

    Raises:
        EngineFailed: when none does.
    """
    found = [engine for engine in answering(log) if asked in ("", engine.name)]
    if not found:
        raise EngineFailed(
            f"No {asked or ', '.join(KNOWN)} answers on this machine. Install one, or start its daemon; "
            "docker needs its plugin buildx too, from version 23 on."
        )
    return found[0]


def parse_size(text: str) -> int:
    """Return the bytes of a size as buildah prints it, such as ``1.2 GB``."""
    number, unit = text.split()
    return round(float(number) * 1000.0 ** ("B", "KB", "MB", "GB", "TB").index(unit.upper()))


def _volumes(mounts: Mapping[Path, str]) -> list[str]:
    return [f"--volume={source}:{target}:ro" for source, target in mounts.items()]
