"""Refunds: one more status, and the orders that have it."""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the value in a transaction of its own: PostgreSQL lets nobody use it before that is committed."""
    with op.get_context().autocommit_block():
        op.execute("ALTER TYPE order_status ADD VALUE 'refunded'")
    op.execute("UPDATE orders SET status = 'refunded' WHERE status = 'cancelled' AND total_cents > 30000")


def downgrade() -> None:
    """Take the status back; the value stays in the type, from which PostgreSQL cannot drop one."""
    op.execute("UPDATE orders SET status = 'cancelled' WHERE status = 'refunded'")
