"""Store of each segment whether it ends its speaker's turn. Rows that exist count as turns of their own."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the column; PostgreSQL stores the default once, not in every row."""
    op.execute("ALTER TABLE segments ADD COLUMN ends_turn boolean NOT NULL DEFAULT true")


def downgrade() -> None:
    """Drop the column."""
    op.execute("ALTER TABLE segments DROP COLUMN ends_turn")
