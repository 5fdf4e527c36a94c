"""What differs between one machine and a cluster; everything else of the controller is the same program."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from torpor_hub.controllers.base import Leadership
from torpor_hub.controllers.workspaces import Images
from torpor_hub.places.base import Place
from torpor_hub.runners.base import Runner
from torpor_hub.settings import Settings
from torpor_hub.stores.base import Store
from torpor_hub.stores.changes import ChangeFeed

Loop = Coroutine[Any, Any, None]


@dataclass(frozen=True)
class Around:
    """What the parts are made from."""

    settings: Settings
    store: Store
    feed: ChangeFeed
    lead: Leadership


@dataclass(frozen=True)
class ControlParts:
    """Where workspaces and jobs run, what keeps their images, and what else has to run for that.

    ``loops`` makes the coroutines that run beside the controllers, for ever; ``close`` ends connections.
    ``ends_with_platform``: workspaces and jobs are ended in order when the platform stops, because nothing carries them on.
    """

    place: Place
    runner: Runner
    images: Images
    loops: Callable[[], Sequence[Loop]]
    close: Callable[[], Awaitable[None]]
    ends_with_platform: bool = field(kw_only=True)
