"""Waking a thread that waits in a selector."""

from __future__ import annotations

import select
import threading

import pytest

from emissary_lib.tunnel.wakeup import Wakeup
from tests.helpers.patience import HANG


@pytest.fixture
def wakeup() -> Wakeup:
    return Wakeup()


def readable(wakeup: Wakeup, timeout: float) -> bool:
    return bool(select.select([wakeup], [], [], timeout)[0])


def test_a_wake_up_before_the_wait_is_not_lost(wakeup: Wakeup) -> None:
    wakeup.wake()
    assert readable(wakeup, 0)
    wakeup.clear()
    assert not readable(wakeup, 0)
    wakeup.close()


def test_another_thread_wakes_a_waiting_one(wakeup: Wakeup) -> None:
    thread = threading.Timer(0.02, wakeup.wake)
    thread.start()
    assert readable(wakeup, HANG)
    thread.join()
    wakeup.close()


def test_any_number_of_wake_ups_neither_blocks_nor_outlives_a_clear(wakeup: Wakeup) -> None:
    for _ in range(100_000):
        wakeup.wake()
    wakeup.clear()
    assert not readable(wakeup, 0)
    wakeup.wake()
    assert readable(wakeup, 0)
    wakeup.close()


def test_waking_what_is_closed_does_nothing(wakeup: Wakeup) -> None:
    wakeup.close()
    wakeup.wake()
