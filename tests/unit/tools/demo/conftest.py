"""One PostgreSQL for all tests of the demo; a fresh database for each."""

from __future__ import annotations

import dataclasses
import itertools
import socket
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from tests.helpers.patience import HANG
from tools.demo import migrate
from tools.demo.postgres import Postgres, embedded_postgres

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def server() -> Iterator[Postgres]:
    with embedded_postgres() as postgres:
        yield postgres


@pytest.fixture
def postgres(server: Postgres) -> Iterator[Postgres]:
    name = f"test{next(_numbers)}"
    with psycopg.connect(**server.direct, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        yield dataclasses.replace(server, database=name)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def connection(postgres: Postgres) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(**postgres.direct, autocommit=True) as connection:
        yield connection


@pytest.fixture
def dial(postgres: Postgres) -> Callable[[], socket.socket]:
    """What the demo does through a tunnel, here over a plain connection."""
    return lambda: socket.create_connection((postgres.host, postgres.port), HANG)


@pytest.fixture
def migrated(postgres: Postgres, dial: Callable[[], socket.socket]) -> Postgres:
    migrate.upgrade(migrate.engine(postgres, dial), lambda revision: None)
    return postgres
