"""Messages in flight, and the pause after errors (docs/protocol.md sections 4.5 and 4.6)."""

from __future__ import annotations

import pytest

from emissary_lib.protocol.stream.congestion import CongestionWindow, ErrorPause, OpenGate


def test_the_cap_grows_by_one_for_each_acknowledged_message() -> None:
    cap = CongestionWindow(4, 16)
    assert cap.cap == 4
    cap.on_ack(1)
    assert cap.cap == 5
    cap.on_ack(100)
    assert cap.cap == 16


def test_after_a_loss_it_grows_by_one_for_a_caps_worth() -> None:
    cap = CongestionWindow(8, 16)
    cap.on_loss()
    assert cap.cap == 4
    cap.on_ack(4)
    assert cap.cap == 4
    cap.on_ack(1)
    assert cap.cap == 5
    cap.on_ack(1000)
    assert cap.cap == 16


def test_it_halves_down_to_one() -> None:
    cap = CongestionWindow(4, 16)
    caps = []
    for _ in range(4):
        cap.on_loss()
        caps.append(cap.cap)
    assert caps == [2, 1, 1, 1]
    cap.on_ack(1)
    assert cap.cap == 2


def test_pauses_double_from_a_tenth_of_a_second_to_five_seconds() -> None:
    pause = ErrorPause()
    now, waits = 0.0, []
    for _ in range(8):
        assert pause.error(now)
        assert pause.until is not None
        waits.append(pause.until - now)
        now = pause.until
    assert waits == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0])
    pause.on_ack()
    assert pause.error(now)
    assert pause.until == pytest.approx(now + 0.1)


def test_errors_within_a_pause_belong_to_it() -> None:
    pause = ErrorPause()
    assert pause.error(1.0)
    assert not pause.error(1.05)
    assert (pause.active(1.05), pause.until) == (True, 1.1)
    assert not pause.active(1.1)
    assert pause.until is None


def test_an_open_gate_lets_everything_through() -> None:
    gate = OpenGate()
    assert all(gate.acquire() for _ in range(1000))
    gate.release(1000)
