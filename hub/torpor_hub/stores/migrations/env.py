"""Alembic's entry: runs the revisions over the configured URL."""

from alembic import context
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from torpor_hub.stores.tables import Table

engine = create_engine(context.config.get_main_option("sqlalchemy.url") or "", poolclass=NullPool)
with engine.connect() as connection:
    context.configure(connection=connection, target_metadata=Table.metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()
