"""Index of orders by customer, built concurrently."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Build the index as one would on a busy database: outside any transaction."""
    with op.get_context().autocommit_block():
        op.create_index(
            "orders_by_customer", "orders", ["customer_id", "status"], postgresql_concurrently=True
        )


def downgrade() -> None:
    """Drop it, as quietly."""
    with op.get_context().autocommit_block():
        op.drop_index("orders_by_customer", "orders", postgresql_concurrently=True)
