"""Why nobody can work in a tenant."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; of what is there, nothing is known to stand in the way."""
    op.add_column("tenants", sa.Column("problem", sa.String(), nullable=False, server_default=""))


def downgrade() -> None:
    """Remove the column."""
    op.drop_column("tenants", "problem")
