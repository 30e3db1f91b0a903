"""First customers and their orders."""

from __future__ import annotations

import datetime

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

customers = sa.table(
    "customers", sa.column("id", sa.Integer), sa.column("name", sa.Text), sa.column("joined", sa.Date)
)

#: Names that a broken character encoding would not survive.
NAMES = ("Ada Lovelace", "Bjørn Ærø", "Chloë Lefèvre", "Đặng Thị Hà", "山田 花子", "Łukasz Żuk", "Ολγα Νίκου")


def upgrade() -> None:
    """Insert 50 customers one by one, and 5,000 orders in one statement."""
    op.bulk_insert(
        customers,
        [
            {
                "id": number,
                "name": f"{NAMES[number % len(NAMES)]} {number}",
                "joined": datetime.date(2024, 1, 1) + datetime.timedelta(days=number),
            }
            for number in range(1, 51)
        ],
    )
    op.execute(
        """
        INSERT INTO orders (id, customer_id, quantity, price_cents, status)
        SELECT n, 1 + n % 50, 1 + n % 7, 100 + (n * 37) % 9900,
               (ARRAY['new', 'paid', 'shipped', 'cancelled'])[1 + n % 4]::order_status
        FROM generate_series(1, 5000) AS n
        """
    )


def downgrade() -> None:
    """Delete them."""
    op.execute("DELETE FROM orders")
    op.execute("DELETE FROM customers")
