"""`torpor users reset`: whoever can read the platform's settings gives a user a new password, shown once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from torpor_hub.services import people
from torpor_hub.services.seeding import seed
from torpor_hub.settings import load
from torpor_hub.stores import migrations
from torpor_hub.stores.base import Store


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A settings file, and beside it a database with the first users."""
    settings_file = tmp_path / "torpor.toml"
    names = ("server", "hub", "proxy", "proxy_api")
    settings_file.write_text(f'state_dir = "{tmp_path}"\n' + "".join(f"{name}.port = 1\n" for name in names))
    settings = load(settings_file)
    migrations.upgrade(settings.database)
    store = Store(settings.database)
    with store.begin("test") as tx:
        seed(tx, settings)
    store.close()
    return settings_file


def reset(name: str, file: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TORPOR_SETTINGS": str(file)}
    command = [str(Path(sys.executable).with_name("torpor")), "users", "reset", name]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def signs_in(file: Path, name: str, password: str) -> bool:
    store = Store(load(file).database)
    with store.begin("test") as tx:
        found = people.sign_in(tx, name, password)
    store.close()
    return found is not None


def test_a_new_password_is_shown_and_works_and_the_one_before_does_not(file: Path) -> None:
    first = reset("ada", file).stdout.strip()
    second = reset("ada", file).stdout.strip()
    assert first != second
    assert signs_in(file, "ada", second)
    assert not signs_in(file, "ada", first)


def test_a_name_that_nobody_has_is_refused_in_a_sentence(file: Path) -> None:
    answer = reset("nobody", file)
    assert answer.returncode == 1
    assert answer.stdout == ""
    assert "nobody" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_place_without_a_platform_is_told_so(tmp_path: Path) -> None:
    answer = reset("ada", tmp_path / "none.toml")
    assert answer.returncode == 1
    assert "cannot be read" in answer.stderr
