"""What must stand in the database after the demo, asked of the database directly.

The expected values are worked out here, from the definition of the data, not read from anywhere.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
from typing import Any, Final

import psycopg

_STATUSES: Final = ("new", "paid", "shipped", "cancelled")
_NAMES: Final = (
    "Ada Lovelace",
    "Bjørn Ærø",
    "Chloë Lefèvre",
    "Đặng Thị Hà",
    "山田 花子",
    "Łukasz Żuk",
    "Ολγα Νίκου",
)


@dataclasses.dataclass(frozen=True, slots=True)
class Check:
    """One fact.

    Attributes:
        what: It, in words.
        expected, found: Equal if all is well.
    """

    what: str
    expected: object
    found: object

    @property
    def ok(self) -> bool:
        """True if what was found is what was expected."""
        return self.expected == self.found


def expected_orders() -> list[tuple[int, int, int, int, str, int]]:
    """All rows of ``orders`` after the last revision: id, customer, quantity, price, status, total."""
    rows = []
    for number in range(1, 5001):
        quantity, price = 1 + number % 7, 100 + number * 37 % 9900
        total, status = quantity * price, _STATUSES[number % 4]
        if status == "cancelled" and total > 30000:
            status = "refunded"
        rows.append((number, 1 + number % 50, quantity, price, status, total))
    return rows


def digest(rows: list[Any]) -> str:
    """A short checksum of rows, for a report."""
    return hashlib.sha256(repr([tuple(row) for row in rows]).encode()).hexdigest()[:16]


def read_orders(connection: psycopg.Connection[Any]) -> list[Any]:
    """All rows of ``orders`` in the shape of :func:`expected_orders`."""
    return connection.execute(
        "SELECT id, customer_id, quantity, price_cents, status::text, total_cents FROM orders ORDER BY id"
    ).fetchall()


def check_history(connection: psycopg.Connection[Any]) -> list[Check]:
    """Compare schema and data with what the history should have made of them.

    Args:
        connection: To the database itself, over no tunnel.
    """

    def ask(statement: str) -> list[Any]:
        return [row[0] for row in connection.execute(statement.encode()).fetchall()]

    orders = expected_orders()
    found = read_orders(connection)
    return [
        Check("revision", ["0006"], ask("SELECT version_num FROM alembic_version")),
        Check(
            "labels of the enum",
            [*_STATUSES, "refunded"],
            ask(
                "SELECT enumlabel FROM pg_enum"
                " WHERE enumtypid = 'order_status'::regtype ORDER BY enumsortorder"
            ),
        ),
        Check(
            "valid index",
            [True],
            ask("SELECT indisvalid FROM pg_index WHERE indexrelid = 'orders_by_customer'::regclass"),
        ),
        Check(
            "columns of orders",
            ["id", "customer_id", "quantity", "price_cents", "status", "total_cents"],
            ask(
                "SELECT column_name FROM information_schema.columns"
                " WHERE table_name = 'orders' AND is_nullable = 'NO' ORDER BY ordinal_position"
            ),
        ),
        Check(
            "check constraint",
            [True],
            ask("SELECT convalidated FROM pg_constraint WHERE conname = 'orders_total_not_negative'"),
        ),
        Check(
            "names of the customers",
            [f"{_NAMES[number % len(_NAMES)]} {number}" for number in range(1, 51)],
            ask("SELECT name FROM customers ORDER BY id"),
        ),
        Check(
            "orders by status",
            dict(collections.Counter(order[4] for order in orders)),
            dict(collections.Counter(row[4] for row in found)),
        ),
        Check("checksum of the orders", digest(orders), digest(found)),
    ]
