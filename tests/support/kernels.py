"""Running cells in a workspace, as JupyterLab does: the kernel's REST routes and its websocket."""

from __future__ import annotations

import json
import uuid
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import httpx
import websocket

SOCKET_WITHIN_S = 60


class CellFailed(AssertionError):
    """A cell raised; carries the traceback's last line."""


class Kernel:
    """A kernel of the server at ``url``, spoken to with a hub token; ``kernel_id`` re-attaches to one that runs."""

    def __init__(self, url: str, token: str, kernel_id: str = "") -> None:
        self._headers = {"Authorization": f"token {token}"}
        self._url = url
        self._session = uuid.uuid4().hex
        self.id = kernel_id or self._start()
        self._socket = self._connect()

    def __enter__(self) -> Kernel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def run(self, code: str, within_s: float = 120) -> str:
        """Return what the cell printed.

        Raises:
            CellFailed: when it raised.
        """
        asked = self._send(code)
        self._socket.settimeout(within_s)
        printed: list[str] = []
        while True:
            message = json.loads(self._socket.recv())
            if message["parent_header"].get("msg_id") != asked:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "stream":
                printed.append(content["text"])
            elif kind == "error":
                raise CellFailed(f"{content['ename']}: {content['evalue']}\n{''.join(printed)}")
            elif kind == "status" and content["execution_state"] == "idle":
                return "".join(printed)

    def _start(self) -> str:
        answer = httpx.post(f"{self._url}api/kernels", json={"name": "python3"}, headers=self._headers, timeout=60)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def _connect(self) -> websocket.WebSocket:
        parts = urlsplit(self._url)
        address = f"ws://{parts.netloc}{parts.path}api/kernels/{self.id}/channels?session_id={self._session}"
        headers = [f"{name}: {value}" for name, value in self._headers.items()]
        return websocket.create_connection(address, header=headers, timeout=SOCKET_WITHIN_S, suppress_origin=True)

    def _send(self, code: str) -> str:
        asked = uuid.uuid4().hex
        header = {"msg_id": asked, "session": self._session, "username": "test", "version": "5.3"}
        content: dict[str, Any] = {"code": code, "silent": False, "store_history": False, "allow_stdin": False}
        message = {
            "header": {**header, "msg_type": "execute_request"},
            "parent_header": {},
            "metadata": {},
            "content": content,
            "channel": "shell",
        }
        self._socket.send(json.dumps(message))
        return asked
