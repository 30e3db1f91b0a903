"""The relay's end: when it is announced (docs/protocol.md section 5.6)."""

from __future__ import annotations

from emissary_lib.protocol.session.goaway import GoAwayTimer


def test_the_end_is_announced_thirty_and_ten_seconds_before() -> None:
    goaway = GoAwayTimer(900.0)
    due = []
    while (at := goaway.next_timeout(heard=True)) < 900.0:
        assert not goaway.announcement(at - 0.1)
        assert goaway.announcement(at)
        assert not goaway.announcement(at)
        due.append((at, goaway.remaining(at)))
    assert due == [(870.0, 30_000), (890.0, 10_000)]
    assert (goaway.over(899.9), goaway.over(900.0), goaway.remaining(901.0)) == (False, True, 0)


def test_announcements_that_are_late_are_one() -> None:
    goaway = GoAwayTimer(900.0)
    assert goaway.announcement(895.0)
    assert not goaway.announcement(896.0)
    assert goaway.next_timeout(heard=True) == 900.0


def test_nothing_is_announced_at_the_end_itself() -> None:
    assert not GoAwayTimer(900.0).announcement(900.0)


def test_what_cannot_be_heard_is_not_due() -> None:
    """Symptom: a GOAWAY that fell into an outage kept the driver spinning until the link was back."""
    goaway = GoAwayTimer(900.0)
    assert goaway.next_timeout(heard=False) == 900.0
    assert goaway.next_timeout(heard=True) == 870.0
