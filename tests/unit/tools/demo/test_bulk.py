"""COPY each way: sizes, checksums, progress."""

from __future__ import annotations

import hashlib
from typing import Any

import psycopg
import pytest

from tools.demo import bulk

SIZE = 300_000


def test_rows_are_the_same_for_a_seed_and_of_the_size_asked_for() -> None:
    once, again = b"".join(bulk.rows(SIZE)), b"".join(bulk.rows(SIZE))
    assert once == again != b"".join(bulk.rows(SIZE, seed=19))
    assert SIZE <= len(once) < SIZE + 70_000
    ids = [int(line.split(b"\t")[0]) for line in once.splitlines()]
    assert ids == list(range(1, len(ids) + 1))


def test_what_is_copied_in_is_what_the_table_gives_back(connection: psycopg.Connection[Any]) -> None:
    bulk.create_tables(connection, SIZE)
    shares: list[float] = []
    sent = bulk.copy_in(connection, SIZE, shares.append)
    assert sent.sha256 == hashlib.sha256(b"".join(bulk.rows(SIZE))).hexdigest()
    held = bulk.copy_out(connection, "bulk_in", SIZE)
    assert (held.size, held.sha256) == (sent.size, sent.sha256)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_a_changed_row_changes_the_checksum(connection: psycopg.Connection[Any]) -> None:
    bulk.create_tables(connection, SIZE)
    before = bulk.copy_out(connection, "bulk_out", SIZE)
    connection.execute("UPDATE bulk_out SET body = overlay(body placing 'x' from 5) WHERE id = 7")
    after = bulk.copy_out(connection, "bulk_out", SIZE)
    assert before.size == after.size >= SIZE
    assert before.sha256 != after.sha256


def test_rate_is_in_millions_of_bytes_a_second() -> None:
    assert bulk.Transfer(20_000_000, "", 4.0).rate == pytest.approx(5.0)
