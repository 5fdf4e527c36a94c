"""Fixtures that several rooms share."""

from __future__ import annotations

import itertools
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from tests.support import postgres
from torpor_hub.stores import migrations
from torpor_hub.stores.base import Store

DATABASES = ("sqlite", "postgresql")
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """Give the URL of a real PostgreSQL server, with a place for the database's name."""
    with postgres.running() as url:
        yield url


@pytest.fixture(params=DATABASES)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of an empty database, once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'torpor.sqlite'}"
    url: str = request.getfixturevalue("postgres_url")
    name = f"t{next(_numbers)}"
    _create(url, name, "template1")
    return url.format(database=name)


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a migrated, empty SQLite database, to be copied."""
    file = tmp_path_factory.mktemp("template") / "torpor.sqlite"
    migrations.upgrade(f"sqlite:///{file}")
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return file


@pytest.fixture(scope="session")
def migrated_postgres(postgres_url: str) -> str:
    """Return the name of a migrated, empty PostgreSQL database, to be copied."""
    _create(postgres_url, "template_torpor", "template1")
    migrations.upgrade(postgres_url.format(database="template_torpor"))
    return "template_torpor"


@pytest.fixture(params=DATABASES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Give a migrated store, once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        file = tmp_path / "torpor.sqlite"
        shutil.copy(request.getfixturevalue("migrated_sqlite"), file)
        store = Store(f"sqlite:///{file}")
    else:
        url: str = request.getfixturevalue("postgres_url")
        name = f"t{next(_numbers)}"
        _create(url, name, request.getfixturevalue("migrated_postgres"))
        store = Store(url.format(database=name))
    yield store
    store.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the figures that tests recorded: of a run that passes nothing else would show them."""
    reports = terminalreporter.stats.get("passed", [])
    lines = [
        f"{report.nodeid.rpartition('/')[2]}: {name} = {value}"
        for report in reports
        if report.when == "call"
        for name, value in report.user_properties
    ]
    if lines:
        terminalreporter.section("recorded")
        for line in lines:
            terminalreporter.write_line(line)


def _create(url: str, name: str, template: str) -> None:
    engine = create_engine(url.format(database="postgres"), isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {template}"))
