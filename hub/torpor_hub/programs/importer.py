"""The importer as a program: ``torpor-importer --settings FILE``."""

from __future__ import annotations

import asyncio
import signal
from functools import partial

from torpor_hub.importer.loop import serve
from torpor_hub.importer.wire import Api
from torpor_hub.programs.starting import start
from torpor_hub.settings import Settings

PROOF = "importer-proof"


def main() -> None:
    """Run the importer until SIGTERM or SIGINT."""
    start("torpor-importer", "Tests, samples and reads external data.", run)


async def run(settings: Settings) -> None:
    """Serve until a signal asks to end.

    Raises:
        StartupError: when the importer's secret is missing.
    """
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    api = Api(settings.api_url, partial(settings.secret, PROOF))
    roots = [str(folder) for folder in (settings.data_dir, *settings.source_roots)]
    try:
        await serve(api, roots, stop)
    finally:
        await api.close()


if __name__ == "__main__":
    main()
