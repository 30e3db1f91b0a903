"""A user whose connection breaks: what it wrote before arrives first (docs/protocol.md, 6-21 and 6-22)."""

from __future__ import annotations

import pytest

from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.constants import LINGER
from emissary_lib.protocol.role import Role
from emissary_lib.protocol.session.events import Aborted, Finished
from emissary_lib.protocol.wire.frames import Frame, FrameType
from tests.helpers.closing_frames import ended_frame, reset_frame, words
from tests.helpers.pair import SessionPair, events, frames, give, read_all, session_of

NOW = 1000.0
BOTH = pytest.mark.parametrize("role", [Role.DIALER, Role.RELAY], ids=["dialer", "relay"])

#: TLS's last word, as OpenSSL and as Java write it in TLS 1.3.
ALERT = bytes.fromhex("17 03 03 00 13") + bytes(19)
JAVA_ALERT = bytes.fromhex("17 03 03 00 23") + bytes(35)


def open_pair() -> SessionPair:
    pair = SessionPair()
    pair.client.send_data(b"question")
    pair.settle()
    read_all(pair.relay, pair.clock.now)
    for each in (pair.client, pair.relay):
        events(each)
    return pair


@BOTH
def test_what_a_user_wrote_before_its_connection_broke_arrives_and_then_the_reset(role: Role) -> None:
    """Symptom: psql, which closes with the server's last TLS record unread, lost its own on a slow way."""
    pair = open_pair()
    one, peer = pair.of(role), pair.peer(role)
    one.send_data(b"last words")
    one.user_lost(Code.DIALER_RESET, "Broken pipe", pair.clock.now)
    one.user_lost(Code.DIALER_RESET, "once more", pair.clock.now)
    assert (one.alive, events(one), one.send_room) == (True, [], 0)
    assert one.send_data(b"from nobody") == 0
    one.send_eof()
    assert not one.send_ended
    pair.settle()
    assert [event.code for event in events(one) if isinstance(event, Aborted)] == [Code.DIALER_RESET]
    assert read_all(peer, pair.clock.now).endswith(b"last words")
    (aborted,) = [event for event in events(peer) if isinstance(event, Aborted)]
    assert (aborted.code, aborted.reason) == (Code.DIALER_RESET, "Broken pipe")
    assert one.undelivered == 0


@BOTH
def test_a_user_that_had_nothing_under_way_is_told_of_at_once(role: Role) -> None:
    pair = open_pair()
    one = pair.of(role)
    one.user_lost(Code.TARGET_RESET, "reset", pair.clock.now, unread=3)
    assert events(one) == [Aborted(Code.TARGET_RESET, "reset")]
    (reset,) = [frame for frame in frames(one, pair.clock.now) if frame.type is FrameType.RESET]
    assert reset.offset == one.written + 3
    one.user_lost(Code.TARGET_RESET, "again", pair.clock.now)
    assert events(one) == []


@BOTH
def test_what_does_not_arrive_is_waited_for_until_five_seconds_bring_nothing_more(role: Role) -> None:
    session = session_of(role, NOW)
    start = session.written
    session.send_data(b"abcd")
    frames(session, NOW)
    session.user_lost(Code.TARGET_RESET, "reset", NOW)
    give(session, Frame(FrameType.ACK, 0, 2, 1 << 20, 0, start + 2), NOW + 4)
    session.handle_timeout(NOW + 4 + LINGER - 0.1)
    assert (session.alive, events(session)) == (True, [])
    frames(session, NOW + 4 + LINGER - 0.1)
    assert session.next_timeout() == NOW + 4 + LINGER
    session.handle_timeout(NOW + 4 + LINGER)
    assert events(session) == [Aborted(Code.TARGET_RESET, "reset")]
    assert session.undelivered == 2


@BOTH
def test_time_without_a_websocket_does_not_count(role: Role) -> None:
    session = session_of(role, NOW)
    session.send_data(b"abcd")
    frames(session, NOW)
    session.user_lost(Code.TARGET_RESET, "reset", NOW)
    session.link_lost(Code.DIALER_GONE, "closed", NOW + 1)
    session.handle_timeout(NOW + 1 + 2 * LINGER)
    session.begin_attempt()
    session.link_restored(NOW + 20)
    session.handle_timeout(NOW + 20 + LINGER - 0.1)
    assert (session.alive, events(session)) == (True, [])


@pytest.mark.parametrize(
    ("last", "whole"),
    [
        (b"", True),
        (ALERT, True),
        (JAVA_ALERT * 2, True),
        (b"more", False),
        (b"x" + ALERT, False),
    ],
    ids=["all arrived", "an alert", "two of Java's", "a question", "more than an alert"],
)
def test_a_target_that_reset_without_tls_s_last_word_had_all(last: bytes, whole: bool) -> None:
    """Symptom: JDBC writes two alerts, the server is gone at the first, and every fourth run alarmed."""
    pair = open_pair()
    now = pair.clock.now
    pair.relay.send_data(b"answer")
    pair.settle()
    pair.client.send_data(last)
    pair.client.send_eof()
    pair.relay.user_lost(Code.TARGET_RESET, "Broken pipe", now)  # the last bytes meet a target that is gone
    (reset,) = [frame for frame in frames(pair.relay, now) if frame.type is FrameType.RESET]
    give(pair.client, reset, now)
    assert events(pair.client)[-1] == Aborted(Code.TARGET_RESET, "Broken pipe", whole)


@pytest.mark.parametrize("last", [ALERT, JAVA_ALERT + JAVA_ALERT, b"ask", ALERT + b"ask"])
@pytest.mark.parametrize("overtaken", [False, True])
def test_a_program_that_said_goodbye_in_tls_may_close_later(last: bytes, overtaken: bool) -> None:
    """Symptom: a program that closed its socket later than its target's reset came back had an alarm."""
    pair = open_pair()
    now = pair.clock.now
    pair.client.send_data(last)
    pair.settle()
    read_all(pair.relay, now)
    pair.relay.user_lost(Code.TARGET_RESET, "reset", now)
    (reset,) = [frame for frame in frames(pair.relay, now) if frame.type is FrameType.RESET]
    if overtaken:
        give(pair.client, ended_frame(Code.TARGET_RESET, 0, 0, "reset"), now)
    give(pair.client, reset, now)
    whole = last.endswith((ALERT, JAVA_ALERT))
    assert [each.whole for each in events(pair.client) if isinstance(each, Aborted)] == [whole]


def test_of_a_user_that_is_gone_nothing_of_the_target_s_is_missing() -> None:
    pair = open_pair()
    now = pair.clock.now
    pair.client.send_data(ALERT)
    pair.client.user_lost(Code.DIALER_RESET, "Broken pipe", now)
    give(pair.client, reset_frame(Code.TARGET_RESET, written=99, handed_over=len(b"question")), now)
    (aborted,) = events(pair.client)
    assert isinstance(aborted, Aborted)
    assert aborted.whole


def test_a_dialer_whose_user_is_gone_waits_for_reset_where_ended_was_faster() -> None:
    pair = open_pair()
    now = pair.clock.now
    pair.client.send_data(b"last words")
    pair.client.user_lost(Code.DIALER_RESET, "Broken pipe", now)
    pair.relay.user_lost(Code.TARGET_RESET, "reset", now)
    told = dict(words(pair.relay, now))
    assert set(told) == {FrameType.END, FrameType.RESET}
    give(pair.client, ended_frame(Code.TARGET_RESET, 0, 0, "reset"), now)
    assert (pair.client.alive, events(pair.client)) == (False, [])
    give(pair.client, reset_frame(Code.TARGET_RESET, handed_over=len(b"question")), now)
    aborted, finished = events(pair.client)
    assert isinstance(aborted, Aborted)
    assert (aborted.whole, finished) == (False, Finished(Code.TARGET_RESET))
