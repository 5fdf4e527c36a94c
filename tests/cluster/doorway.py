"""A way to the API server that a test can shut or let hang, for one program alone."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Literal

Mode = Literal["open", "shut", "hanging"]
PIECE = 65536


class Doorway:
    """Forwards a local port to ``target``. Shut: connections are refused and cut. Hanging: they are taken, and nothing moves."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._mode: Mode = "shut"
        self._moving = threading.Event()
        self._open: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.accepted = 0
        self.be("open")

    def be(self, mode: Mode) -> None:
        """Behave like that from now on."""
        self._mode = mode
        if mode == "hanging":
            self._moving.clear()
        else:
            self._moving.set()
        if mode == "shut":
            self._close()
        elif self._listener is None:
            self._listener = socket.create_server(("127.0.0.1", self.port), backlog=100)
            threading.Thread(target=self._serve, args=(self._listener,), daemon=True).start()

    def _close(self) -> None:
        for each in (self._listener, *self._open):
            if each is not None:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
                each.close()
        self._listener = None
        self._open.clear()

    def _serve(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                inner, _ = listener.accept()
                self.accepted += 1
                outer = socket.create_connection(self._target)
                self._open |= {inner, outer}
                for source, sink in ((inner, outer), (outer, inner)):
                    threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(PIECE):
                self._moving.wait()
                sink.sendall(piece)
        for each in (source, sink):
            self._open.discard(each)
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
