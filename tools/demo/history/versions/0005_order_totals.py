"""Order totals: column, backfill, constraint."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the column empty, fill it, and only then insist on it."""
    op.add_column("orders", sa.Column("total_cents", sa.BigInteger))
    op.execute("UPDATE orders SET total_cents = quantity::bigint * price_cents")
    op.alter_column("orders", "total_cents", nullable=False)
    op.create_check_constraint("orders_total_not_negative", "orders", "total_cents >= 0")


def downgrade() -> None:
    """Drop it."""
    op.drop_column("orders", "total_cents")
