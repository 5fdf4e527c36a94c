"""The loop for the images of profiles: each is copied into the platform's registry, by digest."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Callable

from torpor_hub import failpoints
from torpor_hub.controllers.base import Leadership
from torpor_hub.errors import CorruptImage, ImageMissing, RegistryRefused, RegistryUnavailable
from torpor_hub.oci import references
from torpor_hub.oci.references import Reference
from torpor_hub.oci.registry import Registry, copy_image
from torpor_hub.services import profiles
from torpor_hub.services.profiles import Wish
from torpor_hub.settings import Settings
from torpor_hub.stores.base import Store

LOG = logging.getLogger(__name__)
LOOK_EVERY_S = 60.0
TRY_AGAIN_S = 10.0
KINDS = "org.torpor.kinds"


class ProfileController:
    """Takes the images of profiles over: resolves each to a digest, copies it, and reads the kinds of job that it can run.

    ``registry`` is the platform's own, with an account that may write; None: there is none, and images are run as written.
    ``reach`` gives the registry of an image that is in another one, with the account that may read it there. A tag that was
    moved is seen at the next look; workspaces that have a checkpoint keep the base that it has.
    """

    def __init__(
        self,
        store: Store,
        settings: Settings,
        registry: Registry | None,
        leadership: Leadership,
        *,
        reach: Callable[[Reference], Registry],
    ) -> None:
        self._store = store
        self._settings = settings
        self._registry = registry
        self._lead = leadership
        self._reach = reach
        self._due: dict[tuple[str, str], float] = {}

    async def turn(self) -> None:
        """Look at every profile whose image is new, or was not looked at for a while."""
        if self._registry is None:
            return
        wishes = await asyncio.to_thread(self._load)
        now = time.monotonic()
        self._due = {
            key: at for key in ((wish.profile_id, wish.image) for wish in wishes) if (at := self._due.get(key))
        }
        for wish in wishes:
            if self._due.get((wish.profile_id, wish.image), 0.0) <= now:
                pause_s = await self._look(wish, self._registry)
                self._due[wish.profile_id, wish.image] = time.monotonic() + pause_s

    def _load(self) -> list[Wish]:
        with self._store.read() as tx:
            return profiles.wishes(tx, self._settings)

    async def _look(self, wish: Wish, registry: Registry) -> float:
        """Take an image over where that can be done; return after how many seconds to look again."""
        try:
            digest, kinds = await asyncio.to_thread(self._take_over, wish, registry)
        except (CorruptImage, RegistryUnavailable) as error:
            LOG.warning("profile %s: %s", wish.name, error)
            sentence = f"The image of the profile '{wish.name}' cannot be had: {error}"
            await self._lead.record(lambda tx: profiles.problem(tx, wish, sentence))
            # There are registries that lock an account that was refused often.
            return LOOK_EVERY_S if isinstance(error, RegistryRefused) else TRY_AGAIN_S
        await self._lead.record(lambda tx: profiles.taken_over(tx, wish, digest, kinds))
        return LOOK_EVERY_S

    def _take_over(self, wish: Wish, registry: Registry) -> tuple[str, list[str] | None]:
        """Return the digest of the copy, and the kinds that its label names; None where they are known or not said."""
        named = references.parse(wish.image)
        with contextlib.ExitStack() as stack:
            source = registry
            if named.host != self._settings.registry.host:
                source = self._reach(named)
                stack.callback(source.close)
            digest = source.resolve(named.repository, named.reference)
            if digest == wish.digest and _is_there(registry, wish.repository, digest):
                return digest, None
            failpoints.hit("profile.before_copy")
            _copy(source, named, digest, registry, wish.repository)
        return digest, _kinds(registry, wish.repository, digest)


def _copy(source: Registry, named: Reference, digest: str, target: Registry, repository: str) -> None:
    if source is target and named.repository == repository:
        return
    # A tag of its own keeps what running workspaces and checkpoints began with, when the profile's image moves on.
    copy_image(source, named.repository, digest, target, repository, digest.removeprefix("sha256:")[:32])


def _is_there(registry: Registry, repository: str, digest: str) -> bool:
    try:
        registry.read_manifest(repository, digest)
    except ImageMissing:
        return False
    return True


def _kinds(registry: Registry, repository: str, digest: str) -> list[str] | None:
    labels = json.loads(registry.read_config(repository, digest)).get("config", {}).get("Labels") or {}
    if KINDS not in labels:
        return None
    return [kind for kind in labels[KINDS].split(",") if kind]
