"""Migrates databases of its own, one after the other, in a process of its own: Alembic's context is global.

``python -m tests.soak.migration``; see :mod:`tests.soak.child`.
"""

from __future__ import annotations

import dataclasses
import random

import psycopg

from tests.soak import child
from tests.soak.stats import MismatchError
from tests.soak.work import Context
from tools.demo import migrate, verify
from tools.demo.postgres import Postgres


def main() -> None:
    """Work until standard input ends; then finish what has begun."""
    child.run("migration", _migrate)


def _migrate(context: Context, chance: random.Random) -> None:
    """The whole history in a fresh database, and then a look at the database itself."""
    name = f"soak_{chance.randrange(1 << 60):x}"
    own = dataclasses.replace(context.postgres, database=name)
    _directly(context.postgres, f"CREATE DATABASE {name}")
    try:
        engine = migrate.engine(own, lambda: context.dial((own.host, own.port)))
        try:
            migrate.upgrade(engine, lambda revision: None)
        finally:
            engine.dispose()
        with psycopg.connect(**own.direct, autocommit=True) as connection:
            wrong = [check for check in verify.check_history(connection) if not check.ok]
        if wrong:
            raise MismatchError(f"a migration that went well left {wrong}")
        context.stats.moved(100_000)
    finally:
        _directly(context.postgres, f"DROP DATABASE {name} WITH (FORCE)")


def _directly(postgres: Postgres, statement: str) -> None:
    with psycopg.connect(**postgres.direct, autocommit=True) as connection:
        connection.execute(statement.encode())


if __name__ == "__main__":
    main()
