"""Images as people name them: ``host:port/repository:tag``, with or without a digest (distribution's grammar of references)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from torpor_hub.errors import ImageMissing

HUB, HUB_API = "docker.io", "registry-1.docker.io"
REPOSITORY = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*")
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Reference:
    """An image: the registry's host as it is asked, the repository there, and a tag or a digest."""

    host: str
    repository: str
    reference: str

    @property
    def name(self) -> str:
        """The name without tag and digest, with the host as people write it."""
        return f"{HUB if self.host == HUB_API else self.host}/{self.repository}"


def parse(text: str) -> Reference:
    """Return what ``text`` names. Without a host it is the public hub, as for a node; without a tag, ``latest``.

    Raises:
        ImageMissing: when it names no image.
    """
    named, _, digest = text.strip().partition("@")
    host, slash, rest = named.partition("/")
    if not slash or not ({".", ":"} & set(host) or host == "localhost"):
        host, rest = HUB, named if slash else f"library/{named}"
    repository, colon, tag = rest.rpartition(":")
    if not colon:
        repository, tag = rest, "latest"
    given = digest or tag
    if not REPOSITORY.fullmatch(repository) or not (DIGEST if digest else TAG).fullmatch(given):
        raise ImageMissing(f"'{text}' is not the name of an image, such as registry.example/team/image:1.0.")
    return Reference(HUB_API if host == HUB else host, repository, given)
