"""What every loop shares: the lease, the epoch, waking on changes, and going on after an error."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from sqlalchemy.exc import SQLAlchemyError

from torpor_hub.errors import LeaseLost
from torpor_hub.stores.base import Store, UnitOfWork, drop_lease, take_lease
from torpor_hub.stores.changes import ChangeFeed, Seen

LOG = logging.getLogger(__name__)
LEASE = "controller"
TICK_S = 1.0
T = TypeVar("T")


class Leadership:
    """The controller's lease: one holder at a time, fenced by its epoch."""

    def __init__(self, store: Store, *, lifetime_s: float) -> None:
        self.holder = f"controller-{secrets.token_hex(4)}"
        self.epoch: int | None = None
        self._store = store
        self._lifetime_s = lifetime_s

    async def keep(self) -> None:
        """Take and renew the lease for ever."""
        while True:
            try:
                self.epoch = await asyncio.to_thread(take_lease, self._store, LEASE, self.holder, self._lifetime_s)
            except SQLAlchemyError:
                LOG.exception("the lease could not be renewed")
            await asyncio.sleep(self._lifetime_s / 3)

    def drop(self) -> None:
        """Give the lease back, so that the next holder need not wait."""
        drop_lease(self._store, LEASE, self.holder)

    @contextmanager
    def begin(self) -> Iterator[UnitOfWork]:
        """Give a unit of work that is refused once another controller has taken over.

        Raises:
            LeaseLost: when this controller does not hold the lease.
        """
        if self.epoch is None:
            raise LeaseLost("This controller does not hold the lease.")
        with self._store.begin("controller") as tx:
            tx.fence(LEASE, self.epoch)
            yield tx

    async def record(self, write: Callable[[UnitOfWork], T]) -> T:
        """Run ``write`` in a fenced unit of work, in a thread, and return what it returns."""

        def run() -> T:
            with self.begin() as tx:
                return write(tx)

        return await asyncio.to_thread(run)


class Waker:
    """Wakes a loop when a change of its kinds was committed, or after a tick."""

    def __init__(self, feed: ChangeFeed, kinds: tuple[str, ...]) -> None:
        self._event = asyncio.Event()
        self._kinds = kinds
        self._loop = asyncio.get_running_loop()
        self.end = feed.listen(self._seen)

    async def wait(self, tick_s: float = TICK_S) -> None:
        """Return at the next change, or after ``tick_s``."""
        try:
            await asyncio.wait_for(self._event.wait(), tick_s)
        except TimeoutError:
            return
        finally:
            self._event.clear()

    def _seen(self, change: Seen) -> None:
        if change.kind in self._kinds:
            self._loop.call_soon_threadsafe(self._event.set)


async def loop(name: str, turn: Callable[[], Awaitable[None]], waker: Waker, leadership: Leadership) -> None:
    """Run ``turn`` for ever: at each change and at each tick, while this process holds the lease."""
    while True:
        await waker.wait()
        if leadership.epoch is None:
            continue
        try:
            await turn()
        except LeaseLost:
            LOG.warning("%s: another controller has taken over", name)
            leadership.epoch = None
        except Exception:
            LOG.exception("%s: a turn failed; the next one tries again", name)
            await asyncio.sleep(TICK_S)
