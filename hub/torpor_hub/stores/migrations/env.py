"""Alembic's entry: runs the revisions over the configured URL."""

from alembic import context
from sqlalchemy import create_engine

from torpor_hub.stores.tables import Table

engine = create_engine(context.config.get_main_option("sqlalchemy.url") or "")
with engine.connect() as connection:
    context.configure(connection=connection, target_metadata=Table.metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()
