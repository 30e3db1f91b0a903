"""ENDED: the bridge says that it is over, and how (docs/protocol.md section 6)."""

from __future__ import annotations

import pytest

from emissary_lib.protocol.codes import MEANINGS, Code
from emissary_lib.protocol.role import Role
from emissary_lib.protocol.session.events import Aborted, Finished
from emissary_lib.protocol.session.states import State
from emissary_lib.protocol.wire.frames import Frame, FrameType
from tests.helpers.closing_frames import ended_frame, fin_frame, words
from tests.helpers.pair import events, frames, give, read_all, session_of

NOW = 1000.0
BOTH = pytest.mark.parametrize("role", [Role.DIALER, Role.RELAY], ids=["dialer", "relay"])


@BOTH
def test_ended_confirms_the_end(role: Role) -> None:
    session = session_of(role, NOW)
    session.send_eof()
    frames(session, NOW)
    give(session, fin_frame(0, ack=1), NOW)
    give(session, ended_frame(Code.OK, 1, 1), NOW + 0.1)
    give(session, ended_frame(Code.OK, 1, 1), NOW + 0.2)
    session.abort(Code.DIALER_RESET, "late", NOW)
    session.link_lost(Code.DIALER_GONE, "late", NOW)
    session.link_refused(Code.UNKNOWN_SESSION, "late")
    assert events(session) == [Finished(Code.OK)]
    assert (session.state, session.next_timeout()) == (State.ENDED, None)


@BOTH
def test_ended_with_our_own_offsets_is_clean_though_acknowledgements_are_missing(role: Role) -> None:
    session = session_of(role, NOW)
    session.send_data(b"abc")
    session.send_eof()
    frames(session, NOW)
    give(session, fin_frame(0, b"defghi"), NOW)
    assert session.state is State.OPEN
    dialer, relay = (4, 7) if role is Role.DIALER else (7, 4)
    give(session, ended_frame(Code.OK, dialer, relay), NOW)
    assert events(session) == [Finished(Code.OK)]
    assert (session.undelivered, session.end_acked) == (0, True), "the bridge has said so"
    assert read_all(session, NOW) == b"defghi"


@BOTH
@pytest.mark.parametrize("offsets", [(4, 8), (5, 7), (7, 4)])
def test_ended_with_other_offsets_is_incomplete(role: Role, offsets: tuple[int, int]) -> None:
    session = session_of(role, NOW)
    session.send_data(b"abc")
    session.send_eof()
    frames(session, NOW)
    give(session, fin_frame(0, b"defghi"), NOW)
    give(session, ended_frame(Code.OK, *(offsets if role is Role.DIALER else offsets[::-1])), NOW)
    text = "ended with bytes missing"
    assert events(session) == [Aborted(Code.INCOMPLETE, text), Finished(Code.INCOMPLETE)]
    assert (session.undelivered, session.end_acked) == (3, False)


@BOTH
@pytest.mark.parametrize("complete", [True, False], ids=["it has the FIN", "only the FIN is missing"])
def test_a_side_that_was_cut_off_at_the_end_hears_of_it_when_it_is_back(role: Role, complete: bool) -> None:
    """Symptom: all bytes had come, the session was recorded as clean, and the program saw an error."""
    session = session_of(role, NOW)
    session.send_data(b"abc")
    session.send_eof()
    frames(session, NOW)
    give(session, fin_frame(0, b"defghi") if complete else Frame(FrameType.DATA, payload=b"defghi"), NOW)
    session.link_lost(Code.DIALER_GONE, "closed with 1006", NOW)
    session.begin_attempt()
    session.link_restored(NOW + 1)
    assert [kind for kind, _payload in words(session, NOW + 1)] == [FrameType.RESUME]
    give(session, ended_frame(Code.OK, *((4, 7) if role is Role.DIALER else (7, 4))), NOW + 1)
    assert events(session) == [Finished(Code.OK)]
    assert read_all(session, NOW + 1) == b"defghi"
    assert session.receive_ended


@BOTH
@pytest.mark.parametrize("told", [(4, 8), (5, 7), (4, 6)], ids=["a byte is missing", "ours", "too few"])
def test_a_missing_byte_is_not_taken_for_a_missing_fin(role: Role, told: tuple[int, int]) -> None:
    session = session_of(role, NOW)
    session.send_data(b"abc")
    session.send_eof()
    frames(session, NOW)
    give(session, Frame(FrameType.DATA, payload=b"defghi"), NOW)
    give(session, ended_frame(Code.OK, *(told if role is Role.DIALER else told[::-1])), NOW)
    assert events(session)[-1] == Finished(Code.INCOMPLETE)
    assert read_all(session, NOW) == b"defghi"
    assert not session.receive_ended


@BOTH
def test_a_gap_is_not_taken_for_a_missing_fin(role: Role) -> None:
    session = session_of(role, NOW)
    session.send_eof()
    frames(session, NOW)
    give(session, Frame(FrameType.DATA, offset=3, payload=b"ghi"), NOW)
    give(session, ended_frame(Code.OK, *((1, 7) if role is Role.DIALER else (7, 1))), NOW)
    assert events(session)[-1] == Finished(Code.INCOMPLETE)


@BOTH
def test_a_side_that_comes_back_to_a_session_that_was_cut_off_hears_why(role: Role) -> None:
    session = session_of(role, NOW)
    session.link_lost(Code.DIALER_GONE, "closed with 1006", NOW)
    session.begin_attempt()
    session.link_restored(NOW + 1)
    give(session, ended_frame(Code.TARGET_RESET, 1, 2, "reset by the test"), NOW + 1)
    assert events(session) == [
        Aborted(Code.TARGET_RESET, "reset by the test"),
        Finished(Code.TARGET_RESET),
    ]


@BOTH
def test_ended_while_bytes_are_unsent_is_incomplete(role: Role) -> None:
    session = session_of(role, NOW)
    give(session, fin_frame(0), NOW)
    give(session, ended_frame(Code.OK, *((0, 1) if role is Role.DIALER else (1, 0))), NOW)
    assert events(session)[-1] == Finished(Code.INCOMPLETE)


@BOTH
@pytest.mark.parametrize(
    ("reason", "told"), [("killed by ops", "killed by ops"), ("", MEANINGS[Code.KILLED])]
)
def test_ended_with_a_code_cuts_off_and_says_why(role: Role, reason: str, told: str) -> None:
    session = session_of(role, NOW)
    give(session, Frame(FrameType.DATA, payload=b"got it"), NOW)
    give(session, ended_frame(Code.KILLED, reason=reason), NOW)
    assert events(session) == [Aborted(Code.KILLED, told), Finished(Code.KILLED)]
    assert read_all(session, NOW) == b"got it"
