"""How a program that knows nothing but the platform's settings starts."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from torpor_hub.errors import StartupError
from torpor_hub.settings import Settings, load

T = TypeVar("T")


def start(name: str, description: str, run: Callable[[Settings], Coroutine[Any, Any, T]]) -> T:
    """Run a program with the settings that its arguments or ``TORPOR_SETTINGS`` name, and return what it returns.

    Raises:
        SystemExit: with a sentence, when no settings are named or the program cannot start.
    """
    parser = argparse.ArgumentParser(prog=name, description=description)
    parser.add_argument("--settings", type=Path, default=os.environ.get("TORPOR_SETTINGS"), help="the settings file")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    if arguments.settings is None:
        parser.error("name the settings file by --settings or TORPOR_SETTINGS")
    try:
        return asyncio.run(run(load(Path(arguments.settings))))
    except StartupError as error:
        sys.exit(f"{name}: {error}")
