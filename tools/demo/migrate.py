"""Apply the demo's Alembic history with SQLAlchemy over dialled sockets."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pg8000.dbapi
import sqlalchemy
from alembic import command
from alembic.config import Config
from sqlalchemy.pool import NullPool

from tools.demo.postgres import Postgres


class _Connection(pg8000.dbapi.Connection):  # type: ignore[misc]
    """A pg8000 connection on which switching autocommit on ends the open transaction, as in JDBC.

    Alembic's ``autocommit_block`` commits, asks for the isolation level, which makes pg8000 begin another
    transaction, and switches autocommit on; ``CREATE INDEX CONCURRENTLY`` would then find itself in that one.
    """

    _switched = False

    @property
    def autocommit(self) -> bool:
        """Whether each statement is a transaction of its own."""
        return self._switched

    @autocommit.setter
    def autocommit(self, value: bool) -> None:
        if value and self._in_transaction:
            self.commit()
        self._switched = value


def engine(postgres: Postgres, dial: Callable[[], socket.socket]) -> sqlalchemy.Engine:
    """An engine each of whose connections runs over a socket of its own from ``dial``.

    It pools nothing: a pool would hold tunnels, and on AWS a relay for each, while nobody uses them.
    """

    def connect() -> Any:
        sock = dial()
        try:
            return _Connection(
                user=postgres.user,
                password=postgres.password,
                database=postgres.database,
                sock=sock,
                ssl_context=False,
            )
        except BaseException:
            sock.close()
            raise

    return sqlalchemy.create_engine("postgresql+pg8000://", creator=connect, poolclass=NullPool)


def upgrade(using: sqlalchemy.Engine, applied: Callable[[str], None]) -> None:
    """Apply the whole history.

    Args:
        using: Where to.
        applied: Called with ``"<revision> <title>"`` after each revision.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: If a statement fails.
    """
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "history"))
    config.attributes["applied"] = applied
    with using.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
