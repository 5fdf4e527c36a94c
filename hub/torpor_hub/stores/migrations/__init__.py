"""The database's schema over time (Alembic): expand in one version, contract in the next."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from torpor_hub.errors import StartupError


def _config(url: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    return config


def upgrade(url: str) -> None:
    """Bring the database to the newest revision; one that is there already is left alone.

    Raises:
        StartupError: when it cannot be reached, or holds a schema that does not lead to the newest one.
    """
    try:
        command.upgrade(_config(url), "head")
    except (SQLAlchemyError, CommandError) as error:
        cause = str(error).partition("\n")[0]
        raise StartupError(
            f"The database could not be brought to this version's schema: {cause}. "
            "Nothing was changed by the step that failed; restore a backup, or start the version that made this database."
        ) from error


def check(engine: Engine) -> None:
    """Make sure that the database has the revision that this program knows.

    Raises:
        StartupError: when it is older or newer; the text names both and the remedy.
    """
    wanted = ScriptDirectory.from_config(_config("")).get_current_head()
    with engine.connect() as connection:
        found = MigrationContext.configure(connection).get_current_revision()
    if found != wanted:
        raise StartupError(
            f"The database has schema revision {found or 'none'}, this program needs {wanted}. "
            "Start the platform with `torpor up`, or run the server with the role 'controller', which upgrades it."
        )
