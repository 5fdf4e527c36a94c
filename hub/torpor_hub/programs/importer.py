"""The importer as a program: ``torpor-importer --settings FILE``."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from functools import partial
from pathlib import Path

from torpor_hub.errors import StartupError
from torpor_hub.importer.loop import serve
from torpor_hub.importer.wire import Api
from torpor_hub.settings import Settings, load

PROOF = "importer-proof"


def main() -> None:
    """Run the importer until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="torpor-importer", description="Tests, samples and reads external data.")
    parser.add_argument("--settings", type=Path, default=os.environ.get("TORPOR_SETTINGS"), help="the settings file")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    if arguments.settings is None:
        parser.error("name the settings file by --settings or TORPOR_SETTINGS")
    try:
        asyncio.run(run(load(Path(arguments.settings))))
    except StartupError as error:
        sys.exit(f"torpor-importer: {error}")


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
