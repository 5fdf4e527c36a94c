"""A platform of tiny services, supervised as the real one is: ``stand_in.py STATE PORT... `` prints what it does."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from torpor_hub.errors import StartupError
from torpor_hub.supervisor import lock
from torpor_hub.supervisor.foreground import Foreground
from torpor_hub.supervisor.service import Health, Service
from torpor_hub.supervisor.supervise import end_leftovers

# Answers on its port; writes down when it starts and when it is asked to end; leaves a child in a session of its own.
SERVICE = """
import http.server, os, pathlib, signal, subprocess, sys
name, port, diary, stubborn = sys.argv[1], int(sys.argv[2]), pathlib.Path(sys.argv[3]), sys.argv[4]
def note(what):
    with diary.open("a") as stream:
        stream.write(f"{what} {name}\\n")
def end(*_):
    note("ends")
    if not stubborn:
        os._exit(0)
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
    def log_message(self, *_): pass
signal.signal(signal.SIGTERM, end)
if pathlib.Path(f"{diary}.broken-{name}").exists():
    sys.exit("the configuration is wrong")
server = http.server.HTTPServer(("127.0.0.1", port), Answer)
note("starts")
subprocess.Popen(["sleep", "600"], start_new_session=True)
server.serve_forever()
"""


class Lines:
    def say(self, text: str) -> None:
        print(text, flush=True)

    @contextlib.contextmanager
    def stage(self, title: str) -> Iterator[None]:
        yield
        print(f"stage {title}", flush=True)


def service(name: str, port: int, state: Path, stubborn: str = "") -> Service:
    command = (sys.executable, "-I", "-S", "-c", SERVICE, name, str(port), str(state / "diary"), stubborn)
    return Service(name, command, port, Health(f"http://127.0.0.1:{port}/"), start_s=20, grace_s=30)


def main(state: Path, *arguments: str) -> int:
    names = ("server", "proxy", "hub")
    stubborn = "stubborn" if "stubborn" in arguments else ""
    services = [service(name, int(port), state, stubborn) for name, port in zip(names, arguments, strict=False)]
    state.mkdir(exist_ok=True)
    try:
        with lock.held(state):
            end_leftovers(state)
            asyncio.run(Foreground(services, None, state, Lines()).run(lambda: print("ready", flush=True)))
    except StartupError as error:
        print(error, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *sys.argv[2:]))
