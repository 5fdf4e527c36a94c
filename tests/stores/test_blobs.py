"""Blobs in a folder and in an S3 store: what they keep, and what they say of a store that fails."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import fsspec
import pytest
from fsspec.implementations.local import LocalFileOpener

from tests.support.platform import free_port
from torpor_hub.errors import Unavailable
from torpor_hub.stores.blobs import Blobs

KEY = "logs/job-1/1/0"
TASKS: dict[str, Callable[[Blobs], object]] = {
    "take": lambda blobs: blobs.put(KEY, [b"line"]),
    "give": lambda blobs: blobs.get(KEY),
    "remove": lambda blobs: blobs.delete(KEY),
}


class Refusing(BaseHTTPRequestHandler):
    """An S3 store that refuses every request as one does."""

    def refuse(self) -> None:
        status, code = self.server.answer  # type: ignore[attr-defined]
        body = f"<Error><Code>{code}</Code><Message>words of the store</Message></Error>".encode()
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = refuse  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def refusing(status: int, code: str) -> Iterator[str]:
    """Give the address of a store that answers so to everything."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    server.answer = (status, code)  # type: ignore[attr-defined]
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Blobs]]:
    """Open blobs in the S3 store at an address."""

    def open_at(address: str) -> Blobs:
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", address)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        return Blobs("s3://bucket/torpor")

    yield open_at
    fsspec.get_filesystem_class("s3").clear_instance_cache()


def refusal(blobs: Blobs, task: str) -> str:
    """Return what a user reads of a store that fails; the next step is there and names no address."""
    with pytest.raises(Unavailable) as raised:
        TASKS[task](blobs)
    assert raised.value.__cause__ is not None, "the store's own words are kept for the log"
    assert "platform admin" in raised.value.next_step
    assert KEY in raised.value.message
    return raised.value.message


def test_a_blob_is_there_whole_until_it_is_removed(tmp_path: Path) -> None:
    blobs = Blobs(f"file://{tmp_path}")
    assert blobs.put(KEY, [b"one", b"two"]).size_bytes == 6
    assert (blobs.get(KEY), blobs.get(KEY, 2, 4)) == (b"onetwo", b"et")
    blobs.delete(KEY)
    blobs.delete(KEY)
    with pytest.raises(FileNotFoundError):
        blobs.get(KEY)


def test_a_folder_that_cannot_be_written_is_said_to_be_unavailable(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file where the folder has to be")
    blobs = Blobs(f"file://{tmp_path}")
    assert "cannot be reached or is broken" in refusal(blobs, "take")
    assert "cannot be reached or is broken" in refusal(blobs, "give")


def test_a_full_folder_is_said_to_be_full_and_keeps_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(file: LocalFileOpener, content: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(LocalFileOpener, "write", write)
    with pytest.raises(Unavailable, match="no space left"):
        Blobs(f"file://{tmp_path}").put(KEY, [b"half"])
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_source_that_breaks_off_is_not_taken_for_the_store_and_nothing_of_it_is_kept(tmp_path: Path) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"half"
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        Blobs(f"file://{tmp_path}").put(KEY, chunks())
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("task", TASKS)
def test_an_s3_store_that_refuses_the_account_is_said_to_refuse_it(at: Callable[[str], Blobs], task: str) -> None:
    with refusing(403, "AccessDenied") as address:
        assert "refuses the platform's account" in refusal(at(address), task)


def test_an_s3_store_that_is_away_is_said_to_be_unavailable(at: Callable[[str], Blobs]) -> None:
    blobs = at(f"http://127.0.0.1:{free_port()}")
    assert "cannot be reached" in refusal(blobs, "take")
    assert "cannot be reached" in refusal(blobs, "give")


def test_an_s3_store_with_a_fault_of_its_own_is_said_to_be_broken(at: Callable[[str], Blobs]) -> None:
    with refusing(500, "InternalError") as address:
        assert "is broken" in refusal(at(address), "give")
