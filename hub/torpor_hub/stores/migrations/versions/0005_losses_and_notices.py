"""What the end of a workspace cost, and what of a job's spec could not be had."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

TEXTS = (("workspaces", "lost"), ("jobs", "notice"))


def upgrade() -> None:
    """Add the columns; of what is there, nothing is known to be lost or missing."""
    for table, column in TEXTS:
        op.add_column(table, sa.Column(column, sa.String(), nullable=False, server_default=""))


def downgrade() -> None:
    """Remove the columns."""
    for table, column in TEXTS:
        op.drop_column(table, column)
