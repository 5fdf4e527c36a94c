"""The platform on this machine, from its checks to its orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from rich.console import Console

from torpor_hub.processes.files import write_atomically
from torpor_hub.settings import Settings, load
from torpor_hub.supervisor import java, lock, ports, secret_files, services, settings_file
from torpor_hub.supervisor.foreground import Foreground
from torpor_hub.supervisor.settings_file import Options
from torpor_hub.supervisor.supervise import end_leftovers

WARNING = (
    "Nothing is isolated between users here: whoever signs in runs code with the rights of the account that started this. "
    "For people who do not trust each other, install on a cluster."
)


class Terminal:
    """What `torpor up` prints: stages and events on stderr, address and passwords on stdout."""

    def __init__(self) -> None:
        self._out = Console(highlight=False, soft_wrap=True)
        self._log = Console(stderr=True, highlight=False, soft_wrap=True)

    @contextlib.contextmanager
    def stage(self, title: str) -> Iterator[None]:
        """Show that a stage runs, and the seconds that it took."""
        started = time.monotonic()
        with self._log.status(f"{title} …"):
            yield
        self.say(f"{title} ({time.monotonic() - started:.1f} s)")

    def say(self, text: str) -> None:
        """Print a line. A terminal that is gone must not keep the services from their orderly end."""
        with contextlib.suppress(OSError):
            self._log.print(text, markup=False)

    def show(self, text: str) -> None:
        """Print a line that was asked for."""
        with contextlib.suppress(OSError):
            self._out.print(text, markup=False)


def run(options: Options, *, own_file: Path | None, demo_data: bool) -> None:
    """Run the platform until SIGINT or SIGTERM; return when no process of it is left.

    Raises:
        StartupError: when it cannot start; the text says what to do.
    """
    terminal = Terminal()
    own = settings_file.read(own_file)
    state_dir = settings_file.state_dir(options, own)
    state_dir.mkdir(parents=True, mode=0o700, exist_ok=True)
    with lock.held(state_dir):
        file = _prepare(options, own, state_dir, terminal)
        settings = load(file)
        lock.announce(state_dir, settings.public_url)
        with terminal.stage("Database"):
            _make_records(settings)
        platform = services.platform(settings, file, terminal.say)
        demo = services.demo(settings, file) if demo_data else None
        welcome = partial(_welcome, settings, terminal)
        asyncio.run(Foreground(platform, demo, state_dir, terminal).run(welcome))


def _prepare(options: Options, own: dict[str, object], state_dir: Path, terminal: Terminal) -> Path:
    """Check what the platform needs, make what it keeps, and return its settings file."""
    with terminal.stage("Checks"):
        end_leftovers(state_dir)
        ports.require_free(*settings_file.listen(options, own))
        (state_dir / "run").mkdir(mode=0o700, exist_ok=True)
        inner = ports.keep(state_dir / "run" / "ports.json", settings_file.INNER)
    with terminal.stage("Secrets"):
        secret_files.make(state_dir)
    with terminal.stage("Java for Spark"):
        java_home = own.get("java_home") or java.home(state_dir)
    file = state_dir / "torpor.toml"
    settings_file.write(file, settings_file.compose(options, own, inner, str(java_home)))
    return file


def _make_records(settings: Settings) -> None:
    """Bring the database to this version and make its first records.

    New passwords are written down before they are committed and removed once shown, so that no crash between loses them.
    """
    from torpor_hub.services.seeding import seed
    from torpor_hub.stores import migrations
    from torpor_hub.stores.base import Store

    migrations.upgrade(settings.database)
    store = Store(settings.database)
    try:
        with store.begin("torpor up") as tx:
            made = seed(tx, settings)
            if made:
                write_atomically(_passwords(settings), json.dumps(made).encode())
    finally:
        store.close()


def _passwords(settings: Settings) -> Path:
    return settings.state_dir / "secrets" / "first-passwords.json"


def _welcome(settings: Settings, terminal: Terminal) -> None:
    show, file = terminal.show, _passwords(settings)
    show(f"\nTorpor is ready: {settings.public_url}\n")
    if file.exists():
        pairs: list[tuple[str, str]] = json.loads(file.read_text())
        width = max(len(name) for name, _ in pairs)
        show("Users and their passwords, shown this once:\n")
        show("\n".join(f"  {name:{width}}  {password}" for name, password in pairs) + "\n")
        file.unlink()
    show(
        f"State: {settings.state_dir}. Logs: {settings.state_dir / 'logs'}. Ctrl-C ends everything and keeps the state."
    )
    terminal.say(WARNING)
