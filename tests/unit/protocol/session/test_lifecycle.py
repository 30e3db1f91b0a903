"""The last words: repeated every second, for five (docs/protocol.md section 6)."""

from __future__ import annotations

import pytest

from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.session.lifecycle import Ending


def rounds(ending: Ending) -> list[float]:
    found = []
    while not ending.over(ending.next_timeout, heard=True):
        at = ending.next_timeout
        assert ending.due(at)
        assert not ending.due(at)
        found.append(at)
    return found


def test_five_rounds_a_second_apart_and_then_it_gives_up() -> None:
    ending = Ending.begin(Code.OK, "", 10.0, tell_peer=False)
    assert rounds(ending) == [10.0, 11.0, 12.0, 13.0, 14.0]
    assert ending.next_timeout == 15.0
    assert not ending.over(14.9, heard=True)
    assert ending.over(15.0, heard=True)


def test_the_first_round_may_wait_for_the_peers() -> None:
    ending = Ending.begin(Code.KILLED, "ops", 10.0, tell_peer=False, delay=1.0)
    assert not ending.due(10.9)
    assert rounds(ending) == [11.0, 12.0, 13.0, 14.0]


def test_without_a_websocket_a_reason_is_kept_until_the_bound_and_said_for_five_seconds_after_that() -> None:
    ending = Ending.begin(Code.TARGET_RESET, "reset", 10.0, tell_peer=True)
    ending.wait_for_link(70.0)
    assert not ending.over(69.9, heard=False)
    assert ending.over(70.0, heard=False)
    ending.resume(60.0)
    assert rounds(ending) == [60.0, 61.0, 62.0, 63.0, 64.0]
    assert ending.over(65.0, heard=True)


def test_another_outage_does_not_begin_the_wait_anew_nor_does_it_end_sooner_than_the_last_words() -> None:
    ending = Ending.begin(Code.TARGET_RESET, "reset", 10.0, tell_peer=True)
    ending.wait_for_link(70.0)
    ending.resume(69.0)
    ending.wait_for_link(130.0)
    assert ending.wait_ends == 74.0
    ending.resume(73.0)
    assert ending.until == 75.0


@pytest.mark.parametrize(
    ("code", "tell_peer"),
    [(Code.DIALER_GONE, True), (Code.RELAY_GONE, True), (Code.TARGET_RESET, False)],
    ids=["the dialer was gone", "the relay was gone", "the peer says it"],
)
def test_what_others_find_out_by_themselves_waits_no_longer_than_it_would_be_repeated(
    code: Code, tell_peer: bool
) -> None:
    ending = Ending.begin(code, "", 10.0, tell_peer=tell_peer)
    ending.wait_for_link(70.0)
    ending.resume(14.0)
    assert (ending.until, ending.wait_ends) == (15.0, 15.0)
