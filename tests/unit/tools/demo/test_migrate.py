"""The history over dialled sockets."""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
import sqlalchemy
from alembic import command
from alembic.config import Config

from tools.demo import migrate
from tools.demo.postgres import Postgres


def tables(connection: psycopg.Connection[Any]) -> list[str]:
    rows = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
    return [row[0] for row in rows.fetchall()]


def test_every_revision_is_told_in_order_once_it_stands(
    postgres: Postgres, dial: Callable[[], socket.socket], connection: psycopg.Connection[Any]
) -> None:
    told: list[tuple[str, Any]] = []

    def applied(revision: str) -> None:
        told.append((revision.split()[0], tables(connection)))

    migrate.upgrade(migrate.engine(postgres, dial), applied)
    assert [revision for revision, _ in told] == ["0001", "0002", "0003", "0004", "0005", "0006"]
    assert told[-1][1] == ["alembic_version", "customers", "orders"]


def test_applying_it_again_changes_nothing(migrated: Postgres, dial: Callable[[], socket.socket]) -> None:
    told: list[str] = []
    migrate.upgrade(migrate.engine(migrated, dial), told.append)
    assert told == []


def test_the_history_goes_back_too(
    migrated: Postgres, dial: Callable[[], socket.socket], connection: psycopg.Connection[Any]
) -> None:
    config = Config()
    config.set_main_option("script_location", "tools.demo:history")
    with migrate.engine(migrated, dial).connect() as over:
        config.attributes["connection"] = over
        command.downgrade(config, "base")
    assert tables(connection) == ["alembic_version"]


def test_a_refused_login_closes_the_dialled_socket(
    postgres: Postgres, dial: Callable[[], socket.socket]
) -> None:
    dialled: list[socket.socket] = []

    def remembered() -> socket.socket:
        dialled.append(dial())
        return dialled[-1]

    engine = migrate.engine(dataclasses.replace(postgres, password="wrong"), remembered)
    with pytest.raises(sqlalchemy.exc.DatabaseError, match="password authentication failed"):
        engine.connect()
    assert [sock.fileno() for sock in dialled] == [-1]


def test_nothing_is_pooled_each_connection_dials(
    postgres: Postgres, dial: Callable[[], socket.socket]
) -> None:
    dialled: list[socket.socket] = []

    def remembered() -> socket.socket:
        dialled.append(dial())
        return dialled[-1]

    engine = migrate.engine(postgres, remembered)
    for _ in range(2):
        with engine.connect() as connection:
            assert connection.scalar(sqlalchemy.text("SELECT 1")) == 1
    assert len(dialled) == 2
    assert [sock.fileno() for sock in dialled] == [-1, -1]
