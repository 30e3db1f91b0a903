"""The last words: repeated every second, for five (docs/protocol.md section 6)."""

from __future__ import annotations

from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.ending import Ending


def rounds(ending: Ending) -> list[float]:
    found = []
    while not ending.over(ending.next_timeout):
        at = ending.next_timeout
        assert ending.due(at)
        assert not ending.due(at)
        found.append(at)
    return found


def test_five_rounds_a_second_apart_and_then_it_gives_up() -> None:
    ending = Ending.begin(Code.OK, "", 10.0, tell_peer=False)
    assert rounds(ending) == [10.0, 11.0, 12.0, 13.0, 14.0]
    assert ending.next_timeout == 15.0
    assert not ending.over(14.9)
    assert ending.over(15.0)


def test_the_first_round_may_wait_for_the_peers() -> None:
    ending = Ending.begin(Code.KILLED, "ops", 10.0, tell_peer=False, delay=1.0)
    assert not ending.due(10.9)
    assert rounds(ending) == [11.0, 12.0, 13.0, 14.0]
