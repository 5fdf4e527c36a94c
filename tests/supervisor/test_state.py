from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from torpor_hub.errors import StartupError
from torpor_hub.settings import load
from torpor_hub.supervisor import lock, ports, secret_files, settings_file
from torpor_hub.supervisor.backoff import Backoff
from torpor_hub.supervisor.settings_file import Options


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_secrets_are_their_owners_alone_and_never_change(tmp_path: Path) -> None:
    made = secret_files.make(tmp_path)
    folder = tmp_path / "secrets"
    before = {file.name: file.read_text() for file in folder.iterdir()}
    assert sorted(made) == sorted(before) == sorted(secret_files.MAKERS)
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert len(set(before.values())) == len(before)
    assert secret_files.make(tmp_path) == []
    assert {file.name: file.read_text() for file in folder.iterdir()} == before


def test_a_secret_that_is_new_in_a_later_version_is_added(tmp_path: Path) -> None:
    secret_files.make(tmp_path)
    (tmp_path / "secrets" / "signing-key").unlink()
    assert secret_files.make(tmp_path) == ["signing-key"]


def test_the_key_for_credentials_is_one_that_fernet_takes(tmp_path: Path) -> None:
    secret_files.make(tmp_path)
    key = Fernet((tmp_path / "secrets" / "fernet-key").read_bytes())
    assert key.decrypt(key.encrypt(b"word")) == b"word"


def test_ports_are_kept_from_start_to_start(tmp_path: Path) -> None:
    names = ("server", "hub", "proxy_api")
    first = ports.keep(tmp_path / "ports.json", names)
    assert len(set(first.values())) == len(names)
    assert ports.keep(tmp_path / "ports.json", names) == first


def test_only_a_port_that_was_taken_meanwhile_is_chosen_anew(tmp_path: Path, taken: int) -> None:
    file = tmp_path / "ports.json"
    first = ports.keep(file, ("server", "hub"))
    file.write_text(json.dumps({**first, "hub": taken}))
    second = ports.keep(file, ("server", "hub"))
    assert second["server"] == first["server"]
    assert second["hub"] != taken
    assert ports.keep(file, ("server", "hub")) == second


def test_a_port_in_use_is_refused_with_one_that_is_free(taken: int) -> None:
    with pytest.raises(StartupError, match=rf"Port {taken} on 127\.0\.0\.1 .*--port (\d+)") as refusal:
        ports.require_free("127.0.0.1", taken)
    offered = int(str(refusal.value).rsplit(" ", 1)[1])
    assert ports.is_free("127.0.0.1", offered)


def test_a_second_platform_on_the_same_state_is_told_who_holds_it(tmp_path: Path) -> None:
    program = "import sys; from pathlib import Path; from torpor_hub.supervisor import lock\nwith lock.held(Path(sys.argv[1])): pass"
    with lock.held(tmp_path):
        lock.announce(tmp_path, "http://127.0.0.1:8000/x/")
        second = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=False)
    third = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=False)
    assert second.returncode != 0
    assert f"in use by process {os.getpid()}, at http://127.0.0.1:8000/x/" in second.stderr
    assert "--state" in second.stderr
    assert third.returncode == 0


def test_a_service_that_keeps_dying_waits_longer_each_time() -> None:
    backoff, waits = Backoff(), []
    for _ in range(7):
        wait_s, backoff = backoff.after_death(1.0)
        waits.append(wait_s)
    assert waits == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


def test_half_a_minute_of_life_makes_the_wait_short_again() -> None:
    backoff = Backoff()
    for _ in range(5):
        _, backoff = backoff.after_death(1.0)
    assert backoff.after_death(30.0) == (0.2, Backoff(0.4))


PORTS = {"server": 21_001, "hub": 21_002, "proxy_api": 21_003}


def written(tmp_path: Path, options: Options, own: dict[str, object] | None = None) -> Path:
    file = tmp_path / "torpor.toml"
    settings_file.write(file, settings_file.compose(options, own or {}, PORTS, "/opt/java"))
    return file


def test_the_settings_file_is_read_back_as_it_was_meant(tmp_path: Path) -> None:
    own = {
        "limits": {"start_s": 12.5},
        "seed": {"users": [{"name": "zoë", "admin": True, "tenants": {"a b": "member"}}]},
    }
    settings = load(written(tmp_path, Options(state=tmp_path / 'a "b" é', port=9000, prefix="x/y"), own))
    assert settings.state_dir == tmp_path / 'a "b" é'
    assert settings.public_url == "http://127.0.0.1:9000/x/y/"
    assert (settings.proxy.port, settings.hub.port, settings.java_home) == (9000, 21_002, "/opt/java")
    assert settings.limits.start_s == 12.5
    assert settings.seed.users[0].tenants == {"a b": "member"}


@pytest.mark.parametrize(
    ("options", "own", "url"),
    [
        (Options(), {}, "http://127.0.0.1:8000/"),
        (Options(host="0.0.0.0"), {}, "http://127.0.0.1:8000/"),
        (Options(port=9001, prefix="/p/"), {}, "http://127.0.0.1:9001/p/"),
        (Options(public_url="https://example.org/t"), {}, "https://example.org/t/"),
        (Options(), {"public_url": "https://example.org/o/"}, "https://example.org/o/"),
        (Options(), {"proxy": {"port": 8123}}, "http://127.0.0.1:8123/"),
        (Options(port=9002), {"proxy": {"port": 8123}}, "http://127.0.0.1:9002/"),
    ],
)
def test_what_is_asked_on_the_command_line_comes_first(
    tmp_path: Path, options: Options, own: dict[str, object], url: str
) -> None:
    assert load(written(tmp_path, options, own)).public_url == url


def test_a_settings_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"nowhere\.toml"):
        settings_file.read(tmp_path / "nowhere.toml")
