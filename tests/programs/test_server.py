"""The server as a program: what it does to a database before it serves."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from sqlalchemy import select

from tests.support.installation import settings_in
from torpor_hub.errors import StartupError
from torpor_hub.programs import server
from torpor_hub.services import people
from torpor_hub.stores import migrations
from torpor_hub.stores.base import Store
from torpor_hub.stores.tables import Tenant, User


def test_an_api_waits_for_the_controller_that_upgrades_the_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_in(tmp_path)
    store, looked = Store(settings.database), threading.Event()
    check = migrations.check

    def look(engine: object) -> None:
        looked.set()
        check(engine)  # type: ignore[arg-type]

    monkeypatch.setattr(migrations, "check", look)
    monkeypatch.setattr(server, "LOOK_AGAIN_S", 0.01)
    waiting = threading.Thread(target=server._wait_for_upgrade, args=(store,))
    waiting.start()
    assert looked.wait(10)
    migrations.upgrade(settings.database)
    waiting.join(60)
    assert not waiting.is_alive()
    store.close()


def test_an_api_gives_up_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "UPGRADED_WITHIN_S", 0.0)
    store = Store(settings_in(tmp_path).database)
    with pytest.raises(StartupError, match="the role 'controller'"):
        server._wait_for_upgrade(store)
    store.close()


def test_the_controller_makes_the_first_records_and_leaves_them_alone_later(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    server._make_records(settings)
    store = Store(settings.database)
    with store.begin("test") as tx:
        password = people.reset_password(tx, "ada")
        assert {row.name for row in tx.session.scalars(select(Tenant))} == {"research", "operations"}
    server._make_records(settings)
    with store.begin("test") as tx:
        assert people.sign_in(tx, "ada", password) is not None
        assert len(tx.session.scalars(select(User)).all()) == 3
    store.close()
