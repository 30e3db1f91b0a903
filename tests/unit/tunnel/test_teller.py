"""What may block is told elsewhere, in order, and whoever closes waits for it."""

from __future__ import annotations

import threading

import pytest

from emissary_lib.tunnel.teller import Teller
from tests.helpers.patience import HANG


def test_who_tells_goes_on_while_a_call_blocks_and_the_calls_keep_their_order() -> None:
    teller, go_on = Teller(), threading.Event()
    made: list[int] = []

    def block() -> None:
        assert go_on.wait(HANG)
        made.append(0)

    teller.tell(block)
    for number in range(1, 4):
        teller.tell(lambda number=number: made.append(number))  # type: ignore[misc]
    assert made == []
    go_on.set()
    teller.close()
    assert made == [0, 1, 2, 3]


def test_who_has_told_nothing_needs_no_thread() -> None:
    before = threading.active_count()
    teller = Teller()
    teller.close()
    assert threading.active_count() == before


def test_a_call_that_fails_is_reported_and_the_next_one_made() -> None:
    def fail() -> None:
        raise ZeroDivisionError("a bug")

    reported: list[threading.ExceptHookArgs] = []
    told = threading.Event()
    hook, threading.excepthook = threading.excepthook, reported.append
    try:
        teller = Teller()
        teller.tell(fail)
        teller.tell(told.set)
        teller.close()
    finally:
        threading.excepthook = hook
    assert told.is_set()
    assert [each.exc_type for each in reported] == [ZeroDivisionError]


def test_where_no_thread_is_left_calls_are_made_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    teller, made = Teller(), list[str]()
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        teller.tell(lambda: made.append("here"))
        assert made == ["here"]
    teller.tell(lambda: made.append("there"))
    teller.close()
    assert made == ["here", "there"]
