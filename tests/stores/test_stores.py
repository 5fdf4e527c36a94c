"""The database behaves the same on SQLite and PostgreSQL."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from torpor_hub.errors import LeaseLost, StartupError
from torpor_hub.stores import migrations
from torpor_hub.stores.base import Store, drop_lease, take_lease, utc_now
from torpor_hub.stores.blobs import Blobs
from torpor_hub.stores.changes import ChangeFeed, Seen
from torpor_hub.stores.tables import Change, Table, Tenant


def tenant(name: str) -> Tenant:
    return Tenant(id=f"tn-{name}", name=name, created_at=utc_now(), cpu_milli=1, memory_bytes=5 * 1024**4)


def test_the_migrations_make_just_the_tables_that_the_code_knows(store: Store) -> None:
    with store.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Table.metadata) == []


def test_a_program_refuses_a_database_that_was_never_migrated(database_url: str) -> None:
    store = Store(database_url)
    with pytest.raises(StartupError, match="revision none"):
        migrations.check(store.engine)
    store.close()


def test_a_unit_of_work_that_fails_leaves_nothing(store: Store) -> None:
    with pytest.raises(RuntimeError), store.begin("ada") as tx:
        tx.session.add(tenant("a"))
        tx.change("tenant", "tn-a", "created")
        raise RuntimeError
    with store.read() as tx:
        assert tx.session.query(Tenant).count() == tx.session.query(Change).count() == 0


def test_concurrent_writers_wait_for_each_other_and_none_fails(store: Store) -> None:
    def write(number: int) -> None:
        with store.begin("ada") as tx:
            tx.session.add(tenant(f"t{number}"))
            tx.change("tenant", f"tn-{number}", "created")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(40)))
    with store.read() as tx:
        assert tx.session.query(Change).count() == 40


def test_a_listener_hears_every_change_once_and_in_order(store: Store) -> None:
    feed, heard, enough = ChangeFeed(store), list[Seen](), threading.Event()

    def listen(change: Seen) -> None:
        heard.append(change)
        if len(heard) == 30:
            enough.set()

    feed.start()
    feed.listen(listen)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda number: _record(store, number), range(30)))
    assert enough.wait(10)
    feed.stop()
    assert [change.seq for change in heard] == sorted({change.seq for change in heard})


def _record(store: Store, number: int) -> None:
    with store.begin("ada") as tx:
        tx.change("tenant", f"tn-{number}", "touched")


def test_a_lease_has_one_holder_and_a_new_one_fences_the_old(store: Store) -> None:
    moment = utc_now()
    store.clock = lambda: moment
    assert (take_lease(store, "c", "a", 5), take_lease(store, "c", "b", 5)) == (1, None)
    moment += timedelta(seconds=6)
    assert take_lease(store, "c", "b", 5) == 2
    with pytest.raises(LeaseLost), store.begin("a") as tx:
        tx.fence("c", 1)
    with store.begin("b") as tx:
        tx.fence("c", 2)
    drop_lease(store, "c", "b")
    assert take_lease(store, "c", "a", 5) == 3


def test_a_blob_is_whole_or_absent(tmp_path: object) -> None:
    blobs = Blobs(f"file://{tmp_path}/blobs")

    def broken() -> object:
        yield b"half"
        raise ConnectionError

    with pytest.raises(ConnectionError):
        blobs.put("a/b", broken())  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        blobs.get("a/b")
    written = blobs.put("a/b", [b"one", b"two"])
    assert (written.size_bytes, blobs.get("a/b"), blobs.get("a/b", 2, 4)) == (6, b"onetwo", b"et")
    with pytest.raises(ValueError, match="not a blob key"):
        blobs.get("../secrets/signing-key")
