"""Order status, an enum."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"

status = postgresql.ENUM("new", "paid", "shipped", "cancelled", name="order_status", create_type=False)


def upgrade() -> None:
    """Create the type, and a column of it."""
    status.create(op.get_bind())
    op.add_column("orders", sa.Column("status", status, nullable=False, server_default="new"))


def downgrade() -> None:
    """Drop both."""
    op.drop_column("orders", "status")
    status.drop(op.get_bind())
