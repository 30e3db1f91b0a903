"""A session whose WebSocket, or whose peer's, is gone for a while (docs/protocol.md section 5)."""

from __future__ import annotations

import pytest

from emissary_lib.protocol.codes import MEANINGS, Code
from emissary_lib.protocol.constants import INITIAL_WINDOW
from emissary_lib.protocol.role import Role
from emissary_lib.protocol.session.events import Aborted, Finished, LinkDead, PeerMoved
from emissary_lib.protocol.session.keepalive import KeepaliveTimes, ProbeTimes
from emissary_lib.protocol.session.session import Session
from emissary_lib.protocol.session.states import State
from emissary_lib.protocol.stream.duplex import StreamConfig
from emissary_lib.protocol.wire.frames import Frame, FrameType, decode
from emissary_lib.protocol.wire.payloads import Disconnected, End, GoAway, Resumed
from tests.helpers.pair import LIFE, client_session, events, frames, give, read_all, relay_session, session_of

NOW = 1000.0
BOTH = pytest.mark.parametrize("role", [Role.DIALER, Role.RELAY], ids=["dialer", "relay"])


def watched(role: Role, *, life: float = LIFE) -> Session:
    """An open session that knows its peer, with its watch."""
    if role is Role.RELAY:
        return relay_session(NOW, probing=ProbeTimes(), life=life)
    session = client_session(NOW, keepalive=KeepaliveTimes(), epochs=(1, 1))
    session.finish_opening()
    return session


def resumed(role: Role, own: int, peer: int, *, there: bool = True) -> Frame:
    connection = "peer=" if there else None
    told = Resumed(own, peer, "own=", connection)
    if role is Role.RELAY:
        told = Resumed(peer, own, connection, "own=")
    return Frame(FrameType.RESUMED, payload=told.encode())


def gone(role: Role, epoch: int = 1) -> Frame:
    """The peer of ``side`` is gone."""
    return Frame(FrameType.DISCONNECTED, payload=Disconnected(role.other.wire, epoch).encode())


def kinds(session: Session, now: float) -> list[int]:
    """What it sends now; OPENED counts as DATA."""
    return [
        FrameType.DATA if frame.type == FrameType.OPENED else frame.type for frame in frames(session, now)
    ]


def cut(session: Session, at: float, back: float) -> None:
    session.link_lost(Code.DIALER_GONE, "closed with 1006", at)
    session.handle_timeout(back)
    session.begin_attempt()
    session.link_restored(back)


@BOTH
def test_without_a_link_nothing_is_sent_and_bytes_are_taken_up_to_the_capacity(role: Role) -> None:
    session = session_of(role, NOW, streams=StreamConfig(capacity=INITIAL_WINDOW))
    session.link_lost(Code.DIALER_GONE, "closed", NOW)
    assert session.send_data(bytes(100_000)) == INITIAL_WINDOW
    assert session.send_room == 0
    for second in range(60):
        session.handle_timeout(NOW + second)
        assert session.messages_to_send(NOW + second) == []
        assert session.next_timeout() == NOW + 60  # and nobody is woken meanwhile
    assert (session.counters.link_losses, session.counters.losses) == (1, 0)


@BOTH
def test_what_was_never_sent_and_whether_it_could_arrive_is_told(role: Role) -> None:
    session = watched(role)
    session.send_data(b"one")
    assert (session.unsent, session.may_send) == (3, True)
    assert kinds(session, NOW) == [FrameType.DATA]
    assert (session.unsent, session.may_send) == (0, True)
    give(session, gone(role), NOW)
    assert not session.may_send  # the peer is away
    session.send_data(b"more")
    cut(session, NOW + 0.1, NOW + 30)
    assert (session.unsent, session.may_send) == (4, False)  # until the bridge has told who is there
    give(session, resumed(role, 2, 1), NOW + 30.1)
    assert (session.unsent, session.may_send) == (4, True)


@BOTH
def test_after_a_reconnect_everything_unacknowledged_goes_out_once_more_and_only_once(role: Role) -> None:
    session = watched(role)
    session.send_data(b"one")
    assert kinds(session, NOW) == [FrameType.DATA]
    cut(session, NOW + 0.1, NOW + 30)  # the retransmission timer would have run out long ago
    session.handle_timeout(NOW + 30)
    (resume,) = session.messages_to_send(NOW + 30)
    assert (decode(resume.data).type, decode(resume.data).generation, resume.to_bridge) == (9, 3, True)
    give(session, resumed(role, 2, 1), NOW + 30.1)
    session.handle_timeout(NOW + 30.1)
    assert kinds(session, NOW + 30.1) == [FrameType.DATA, FrameType.ACK]
    give(session, resumed(role, 2, 1), NOW + 30.2)
    give(session, Frame(FrameType.ACK, generation=3), NOW + 30.2)
    assert FrameType.DATA not in kinds(session, NOW + 30.3)
    counters = session.counters
    assert (counters.retransmits, counters.losses, counters.resumes) == (1, 0, 1)


@BOTH
def test_resume_carries_the_receive_offset(role: Role) -> None:
    session = watched(role)
    give(session, Frame(FrameType.DATA, generation=2, payload=b"abc"), NOW)
    cut(session, NOW, NOW + 1)
    (resume,) = frames(session, NOW + 1)
    assert (resume.ack, resume.payload) == (3, b"")


@BOTH
def test_what_was_sacked_is_not_sent_again(role: Role) -> None:
    session = watched(role)
    session.send_data(b"one")
    frames(session, NOW)
    session.send_data(b"two")
    frames(session, NOW)
    sack = (3).to_bytes(8, "big") + (6).to_bytes(8, "big")
    give(session, Frame(FrameType.ACK, generation=2, payload=sack), NOW)
    cut(session, NOW, NOW + 1)
    frames(session, NOW + 1)
    give(session, resumed(role, 2, 1), NOW + 1)
    assert [frame.offset for frame in frames(session, NOW + 1) if frame.type != FrameType.ACK] == [0]


@BOTH
def test_resumed_is_answered_by_an_acknowledgement_and_an_outdated_one_by_nothing(role: Role) -> None:
    session = watched(role)
    give(session, resumed(role, 1, 2), NOW)
    (ack,) = frames(session, NOW)
    assert (ack.type, ack.generation) == (FrameType.ACK, 3)
    give(session, resumed(role, 1, 1), NOW)
    assert frames(session, NOW) == []


@BOTH
def test_a_peer_that_moved_is_told_once(role: Role) -> None:
    session = watched(role)
    give(session, resumed(role, 1, 2), NOW)
    give(session, resumed(role, 1, 2), NOW)
    give(session, resumed(role, 1, 1), NOW)
    assert events(session) == [PeerMoved("peer=")]


@BOTH
def test_a_peer_that_is_away_costs_no_message_until_it_is_back(role: Role) -> None:
    session = watched(role)
    session.send_data(b"one")
    frames(session, NOW)
    give(session, gone(role), NOW)
    session.send_data(b"two")
    for second in range(60):
        session.handle_timeout(NOW + second)
        assert frames(session, NOW + second) == []
    give(session, resumed(role, 1, 2), NOW + 59)
    assert kinds(session, NOW + 59) == [FrameType.DATA, FrameType.DATA, FrameType.ACK]
    assert session.counters.losses == 0


@BOTH
def test_a_late_disconnected_of_the_connection_before_is_ignored(role: Role) -> None:
    session = watched(role)
    give(session, resumed(role, 1, 2), NOW)
    give(session, gone(role, 1), NOW)
    session.send_data(b"x")
    assert kinds(session, NOW)[0] == FrameType.DATA


@BOTH
def test_bytes_of_an_older_generation_are_as_good_as_any(role: Role) -> None:
    session = watched(role)
    give(session, resumed(role, 1, 2), NOW)
    give(session, Frame(FrameType.DATA, generation=2, payload=b"late"), NOW)
    assert read_all(session, NOW) == b"late"


@BOTH
def test_a_watch_begins_anew_when_the_peer_is_back(role: Role) -> None:
    """Symptom: a question asked just before the peer went away called the new link dead at once."""
    session = watched(role)
    at = NOW
    while (at := session.next_timeout() or at) < NOW + 280:
        session.handle_timeout(at)
        if any(kind in (FrameType.PING, FrameType.PROBE) for kind in kinds(session, at)):
            break
    give(session, gone(role), at + 1)
    give(session, resumed(role, 1, 2), at + 55)
    session.handle_timeout(at + 55)
    assert not any(isinstance(event, LinkDead) for event in events(session))
    assert session.link_deadline is None


def test_a_dialers_keepalive_begins_anew_on_a_new_connection() -> None:
    session = watched(Role.DIALER)
    cut(session, NOW + 239, NOW + 298)
    frames(session, NOW + 298)
    give(session, resumed(Role.DIALER, 2, 1), NOW + 298)
    give(session, Frame(FrameType.ACK, generation=3), NOW + 298)
    frames(session, NOW + 298)
    assert session.next_timeout() == NOW + 298 + 240


def test_a_relay_whose_probe_is_not_answered_drops_its_link() -> None:
    session = watched(Role.RELAY)
    session.send_data(b"rows")
    seen: list[tuple[float, int]] = []
    at = NOW
    while session.link_deadline is None:
        session.handle_timeout(at)
        seen += [(at - NOW, kind) for kind in kinds(session, at) if kind != FrameType.DATA]
        at = session.next_timeout() or at
    assert seen == [(20, FrameType.PROBE)]
    assert events(session) == [LinkDead()]
    assert session.link_deadline == NOW + 30 + 60


def test_a_relay_that_lost_its_dialer_for_good_ends_after_interval_deadline_and_grace() -> None:
    session = watched(Role.RELAY)
    at = NOW
    while session.alive:
        session.handle_timeout(at)
        for kind in kinds(session, at):
            if kind == FrameType.PROBE:
                give(session, Frame(FrameType.PROBED, payload=bytes(8)), at)
        at = session.next_timeout() or at
    assert events(session) == [Aborted(Code.DIALER_GONE, MEANINGS[Code.DIALER_GONE])]
    assert session.counters.messages_sent < 12  # the last words included
    session.handle_timeout(NOW + 325)
    assert events(session) == [Finished(Code.DIALER_GONE)]


def test_a_post_that_met_410_asks_the_bridge_and_resends_after_a_pause() -> None:
    session = watched(Role.RELAY)
    session.send_data(b"rows")
    frames(session, NOW)
    for _post in range(5):
        session.peer_unknown(NOW)
    assert kinds(session, NOW) == [FrameType.RESUME]
    give(session, resumed(Role.RELAY, 1, 1), NOW + 0.05)
    assert FrameType.DATA in kinds(session, NOW + 0.1)


def test_a_relay_with_nothing_left_to_deliver_ends_when_the_bridge_says_that_the_dialer_left() -> None:
    session = watched(Role.RELAY)
    session.send_eof()
    frames(session, NOW)
    give(session, Frame(FrameType.DATA, 1, 2, payload=b"bye"), NOW)
    give(session, resumed(Role.RELAY, 1, 1, there=False), NOW)
    (end,) = [End.decode(frame.payload) for frame in frames(session, NOW)]
    assert (end.code, end.sent, end.received) == (Code.OK, 1, 4)


def test_a_dialer_that_is_back_is_not_taken_to_have_left() -> None:
    """Symptom: an outdated RESUMED, between the dialer's first frame and the newest RESUMED, ended it."""
    session = watched(Role.RELAY)
    session.send_eof()
    frames(session, NOW)
    give(session, Frame(FrameType.DATA, 1, 3, payload=b"bye"), NOW)
    give(session, resumed(Role.RELAY, 1, 1, there=False), NOW)
    give(session, gone(Role.RELAY, 1), NOW)
    assert session.state is State.OPEN
    assert FrameType.END not in kinds(session, NOW)


@BOTH
def test_a_refused_reconnect_is_a_definite_end(role: Role) -> None:
    session = watched(role)
    session.link_lost(Code.DIALER_GONE, "closed", NOW)
    session.begin_attempt()
    session.link_refused(Code.UNKNOWN_SESSION, "HTTP status 409")
    session.link_refused(Code.UNKNOWN_SESSION, "HTTP status 409")
    assert events(session) == [
        Aborted(Code.UNKNOWN_SESSION, "HTTP status 409"),
        Finished(Code.UNKNOWN_SESSION),
    ]
    assert (session.link_deadline, session.next_timeout()) == (None, None)


@BOTH
def test_an_abort_while_the_link_is_down_is_told_when_it_is_back(role: Role) -> None:
    session = watched(role)
    session.link_lost(Code.DIALER_GONE, "closed", NOW)
    session.abort(Code.TARGET_RESET, "reset", NOW + 1)
    assert (session.messages_to_send(NOW + 1), session.link_deadline) == ([], NOW + 60)
    session.begin_attempt()
    session.link_restored(NOW + 59)
    assert kinds(session, NOW + 59) == [FrameType.END, FrameType.RESET]


def test_goaway_goes_out_thirty_and_ten_seconds_before_the_end() -> None:
    session = relay_session(NOW, life=100.0)
    for before in (30, 10):
        at = session.next_timeout()
        assert at == NOW + 100 - before
        session.handle_timeout(at)
        (away,) = frames(session, at)
        assert GoAway.decode(away.payload) == GoAway(Code.RELAY_DEADLINE, before * 1000)
    session.handle_timeout(NOW + 100)
    assert events(session) == [Aborted(Code.RELAY_DEADLINE, MEANINGS[Code.RELAY_DEADLINE])]


def test_goaway_that_was_due_in_an_outage_is_told_after_it_and_wakes_nobody_before() -> None:
    session = watched(Role.RELAY, life=100.0)
    session.link_lost(Code.RELAY_GONE, "closed", NOW + 60)
    assert session.next_timeout() == NOW + 100
    session.begin_attempt()
    session.link_restored(NOW + 80)
    assert kinds(session, NOW + 80) == [FrameType.RESUME]
    give(session, resumed(Role.RELAY, 2, 1), NOW + 80)
    away = next(frame for frame in frames(session, NOW + 80) if frame.type == FrameType.GOAWAY)
    assert GoAway.decode(away.payload).remaining == 20_000


def test_a_relay_does_not_reconnect_beyond_its_end() -> None:
    """Symptom: an attempt begun just before the end held the relay up beyond Lambda's own limit."""
    session = watched(Role.RELAY, life=100.0)
    session.link_lost(Code.RELAY_GONE, "closed", NOW + 90)
    assert session.link_deadline == NOW + 100


def test_an_orphaned_relay_ends_in_time_though_its_own_link_is_lost_just_then() -> None:
    session = watched(Role.RELAY)
    orphaned = NOW + ProbeTimes().orphan
    session.link_lost(Code.RELAY_GONE, "closed with 1001", orphaned - 1)
    assert session.next_timeout() == orphaned
    session.handle_timeout(orphaned)
    assert session.state is State.ENDED
    assert events(session) == [
        Aborted(Code.DIALER_GONE, MEANINGS[Code.DIALER_GONE]),
        Finished(Code.DIALER_GONE),
    ]


def flap(session: Session, at: float) -> None:
    """It comes back at once, and is cut off a second later."""
    session.begin_attempt()
    session.link_restored(at)
    frames(session, at)
    session.link_lost(Code.DIALER_GONE, "closed with 1006", at + 1)


@BOTH
def test_connections_that_do_not_hold_do_not_begin_the_grace_anew(role: Role) -> None:
    session = watched(role)
    session.link_lost(Code.DIALER_GONE, "closed with 1006", NOW)
    assert (session.flapping, session.link_deadline) == (False, NOW + 60)
    for second in range(1, 51, 10):
        flap(session, NOW + second)
        assert (session.flapping, session.link_deadline) == (True, NOW + 60)
    session.handle_timeout(NOW + 60)
    code = Code.DIALER_GONE if role is Role.DIALER else Code.RELAY_GONE
    aborted, finished = events(session)
    assert isinstance(aborted, Aborted)
    assert (aborted.code, finished) == (code, Finished(code))
    assert aborted.reason == (
        f"{MEANINGS[code]}: 6 connections in a row were accepted and then lost within 5 s, the last one "
        "thus: closed with 1006; see what closes them, a proxy on the way or the gateway"
    )


@BOTH
@pytest.mark.parametrize("held", [4.9, 5.0])
def test_a_connection_that_held_for_five_seconds_ends_the_outage(role: Role, held: float) -> None:
    session = watched(role)
    session.link_lost(Code.DIALER_GONE, "closed", NOW)
    flap(session, NOW + 1)
    session.begin_attempt()
    session.link_restored(NOW + 10)
    session.link_lost(Code.DIALER_GONE, "closed", NOW + 10 + held)
    assert session.flapping == (held < 5)
    assert session.link_deadline == (NOW + 60 if held < 5 else NOW + 75)


@BOTH
def test_a_connection_over_which_bytes_moved_ends_the_outage_though_it_is_lost_soon(role: Role) -> None:
    session = watched(role)
    session.link_lost(Code.DIALER_GONE, "closed", NOW)
    session.begin_attempt()
    session.link_restored(NOW + 1)
    give(session, resumed(role, 2, 1), NOW + 1)
    give(session, Frame(FrameType.DATA, generation=3, payload=b"rows"), NOW + 1)
    session.link_lost(Code.DIALER_GONE, "closed", NOW + 2)
    assert (session.flapping, session.link_deadline) == (False, NOW + 62)


@BOTH
@pytest.mark.parametrize("outstanding", [True, False], ids=["with bytes to send", "idle"])
def test_a_connection_over_which_the_peer_was_heard_ends_the_outage_only_if_there_was_nothing_to_send(
    role: Role, outstanding: bool
) -> None:
    """A proxy that closes at each large message lets every small one through."""
    session = watched(role)
    if outstanding:
        session.send_data(b"rows")
        frames(session, NOW)
    session.link_lost(Code.DIALER_GONE, "closed", NOW)
    session.begin_attempt()
    session.link_restored(NOW + 1)
    give(session, resumed(role, 2, 1), NOW + 1)
    give(session, Frame(FrameType.ACK, generation=3), NOW + 1)
    frames(session, NOW + 1)
    session.link_lost(Code.DIALER_GONE, "closed", NOW + 2)
    assert session.link_deadline == (NOW + 60 if outstanding else NOW + 62)
    assert session.flapping  # and the back-off goes on in any case
