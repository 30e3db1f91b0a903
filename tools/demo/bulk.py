"""COPY of many bytes each way, with a checksum at both ends."""

from __future__ import annotations

import dataclasses
import hashlib
import random
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import psycopg

#: Characters of each row's second column.
_ROW: Final = 1000


@dataclasses.dataclass(frozen=True, slots=True)
class Transfer:
    """What one COPY moved.

    Attributes:
        size: Bytes of COPY text.
        sha256: Of those bytes.
        seconds: From the statement to its completion.
    """

    size: int
    sha256: str
    seconds: float

    @property
    def rate(self) -> float:
        """Millions of bytes a second."""
        return self.size / 1e6 / self.seconds


def rows(size: int, *, seed: int = 18) -> Iterator[bytes]:
    """COPY text of at least ``size`` bytes, 64 KB at a time; incompressible, the same for a seed."""
    numbers = random.Random(seed)
    made, number = 0, 0
    while made < size:
        lines = []
        for _ in range(64):
            number += 1
            lines.append(b"%d\t%s\n" % (number, numbers.randbytes(_ROW // 2).hex().encode()))
        block = b"".join(lines)
        made += len(block)
        yield block


def create_tables(connection: psycopg.Connection[Any], size: int) -> None:
    """Make ``bulk_in``, empty, and ``bulk_out``, with ``size`` bytes made by the database itself."""
    with connection.transaction():
        connection.execute("CREATE TABLE bulk_in (id bigint PRIMARY KEY, body text NOT NULL)")
        connection.execute("CREATE TABLE bulk_out (id bigint PRIMARY KEY, body text NOT NULL)")
        connection.execute(
            "INSERT INTO bulk_out"
            " SELECT n, (SELECT string_agg(md5(n || ' ' || m), '') FROM generate_series(1, 31) m)"
            " FROM generate_series(1, %s) n",
            (size // 990,),
        )


def copy_in(connection: psycopg.Connection[Any], size: int, progress: Callable[[float], None]) -> Transfer:
    """Send ``rows(size)`` to ``bulk_in`` and commit.

    Args:
        connection: Where to.
        size: Bytes, at least.
        progress: Called with the share done, 0 to 1.

    Raises:
        psycopg.Error: If the server refuses them.
    """
    digest, moved, begun = hashlib.sha256(), 0, time.monotonic()
    with connection.transaction(), connection.cursor() as cursor:
        with cursor.copy("COPY bulk_in (id, body) FROM STDIN") as copy:
            for block in rows(size):
                copy.write(block)
                digest.update(block)
                moved += len(block)
                progress(min(1.0, moved / size))
    return Transfer(moved, digest.hexdigest(), time.monotonic() - begun)


def copy_out(
    connection: psycopg.Connection[Any],
    table: str,
    size: int,
    progress: Callable[[float], None] | None = None,
) -> Transfer:
    """Fetch a table, in the order of its ids.

    Args:
        connection: Where from.
        table: ``bulk_in`` or ``bulk_out``.
        size: Bytes expected, for ``progress`` alone.
        progress: Called with the share done, 0 to 1.

    Raises:
        psycopg.Error: If the server refuses.
    """
    digest, moved, begun = hashlib.sha256(), 0, time.monotonic()
    statement = psycopg.sql.SQL("COPY (SELECT id, body FROM {} ORDER BY id) TO STDOUT")
    with connection.cursor() as cursor:
        with cursor.copy(statement.format(psycopg.sql.Identifier(table))) as copy:
            for block in copy:
                digest.update(block)
                moved += len(block)
                if progress is not None:
                    progress(min(1.0, moved / size))
    return Transfer(moved, digest.hexdigest(), time.monotonic() - begun)
