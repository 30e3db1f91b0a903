"""The measurements, over plain connections."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from tests.helpers.patience import HANG
from tools.bench import measure
from tools.bench.measure import Dial
from tools.bench.target import target_process


@pytest.fixture
def dial() -> Iterator[Dial]:
    with target_process() as target:
        yield lambda: socket.create_connection(target, HANG)


def test_a_dial_s_time_is_measured_in_milliseconds(dial: Dial) -> None:
    def slow() -> socket.socket:
        time.sleep(0.02)
        return dial()

    assert measure.dial_milliseconds(slow, 3) >= 20


def test_dials_are_closed_again(dial: Dial) -> None:
    dialled: list[socket.socket] = []

    def remembered() -> socket.socket:
        assert all(sock.fileno() == -1 for sock in dialled), "the one before is still open"
        dialled.append(dial())
        return dialled[-1]

    measure.dial_milliseconds(remembered, 3)
    assert len(dialled) == 3


def test_round_trips_and_streams_are_measured(dial: Dial) -> None:
    assert measure.round_trip_milliseconds(dial, 5) > 0
    assert measure.from_target_megabytes(dial, 100_000, 1_000_000) > 0
    assert measure.to_target_megabytes(dial, 100_000, 1_000_000) > 0


def test_idle_connections_use_less_than_a_busy_process(dial: Dial) -> None:
    assert 0 <= measure.idle_cpu_seconds(dial, 2, 0.3, settle=0.0) < 0.3
