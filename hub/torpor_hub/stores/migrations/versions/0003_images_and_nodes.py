"""Images of profiles, the nodes of workspaces, and GPUs of tenants and pools."""

import sqlalchemy as sa
from alembic import op

import torpor_hub.stores.tables.base

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TEXTS = (
    ("profiles", "image"),
    ("profiles", "digest"),
    ("profiles", "problem"),
    ("workspaces", "node"),
    ("workspaces", "container"),
)
NUMBERS = (("tenants", "gpu_count"), ("pools", "gpu_count"))


def upgrade() -> None:
    """Add the columns; what is there has no image, no node and no GPU."""
    for table, column in TEXTS:
        op.add_column(table, sa.Column(column, sa.String(), nullable=False, server_default=""))
    for table, column in NUMBERS:
        op.add_column(table, sa.Column(column, sa.Integer(), nullable=False, server_default="0"))
    op.add_column("operations", sa.Column("removing", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column(
        "operations", sa.Column("frozen_until", torpor_hub.stores.tables.base.Utc(timezone=True), nullable=True)
    )


def downgrade() -> None:
    """Remove the columns."""
    for table, column in (*TEXTS, *NUMBERS, ("operations", "removing"), ("operations", "frozen_until")):
        op.drop_column(table, column)
