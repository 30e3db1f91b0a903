"""The verification: it accepts the true history, and sees every kind of damage."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from tools.demo.postgres import Postgres
from tools.demo.verify import check_history, digest, expected_orders, read_orders


def wrong(connection: psycopg.Connection[Any]) -> list[str]:
    return [check.what for check in check_history(connection) if not check.ok]


def test_the_true_history_passes(migrated: Postgres, connection: psycopg.Connection[Any]) -> None:
    assert wrong(connection) == []
    assert digest(read_orders(connection)) == digest(expected_orders())


@pytest.mark.parametrize(
    ("damage", "seen"),
    [
        ("UPDATE alembic_version SET version_num = '0005'", ["revision"]),
        (
            "ALTER TYPE order_status RENAME VALUE 'paid' TO 'payed'",
            ["labels of the enum", "orders by status"],
        ),
        (
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'orders_by_customer'::regclass",
            ["valid index"],
        ),
        ("ALTER TABLE orders ALTER total_cents DROP NOT NULL", ["columns of orders"]),
        ("ALTER TABLE orders DROP CONSTRAINT orders_total_not_negative", ["check constraint"]),
        ("UPDATE customers SET name = 'Bjorn Aero 1' WHERE id = 1", ["names of the customers"]),
        ("UPDATE orders SET total_cents = total_cents + 1 WHERE id = 4711", ["checksum of the orders"]),
        ("DELETE FROM orders WHERE id = 1", ["orders by status", "checksum of the orders"]),
    ],
)
def test_damage_is_seen(
    damage: str, seen: list[str], migrated: Postgres, connection: psycopg.Connection[Any]
) -> None:
    connection.execute(damage.encode())
    assert set(seen) <= set(wrong(connection))
