"""How much of one connection's bytes has arrived, by what of the session's stream has."""

from __future__ import annotations

from emissary_lib.tunnel.arrival import ArrivalMarks


def test_nothing_has_arrived_of_nothing() -> None:
    assert ArrivalMarks().arrived(1000) == 0


def test_bytes_have_arrived_once_the_session_s_stream_behind_them_has() -> None:
    marks = ArrivalMarks()
    marks.note(10, 100)
    marks.note(30, 250)
    assert [marks.arrived(acked) for acked in (0, 99, 100, 249, 250, 9999)] == [0, 0, 10, 10, 30, 30]


def test_a_note_that_tells_nothing_new_changes_nothing() -> None:
    marks = ArrivalMarks()
    marks.note(10, 100)
    marks.note(10, 200)
    assert marks.arrived(100) == 10
