"""How a tunnel replaces its link: at once, then ever more rarely, until it may not any more."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from emissary_lib.exceptions import (
    GatewayRefusedError,
    GatewayUnreachableError,
    LinkClosedError,
    LinkRefusedError,
    TransportError,
)
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.constants import ATTEMPT_TIMEOUT, BACK_OFF, GRACE
from emissary_lib.protocol.role import Role
from emissary_lib.protocol.session.events import (
    Aborted,
    Event,
    Finished,
    LinkDead,
    MessagesShortened,
    PeerMoved,
)
from emissary_lib.protocol.session.keepalive import KeepaliveTimes
from emissary_lib.protocol.session.session import Outgoing, Session, SessionConfig
from emissary_lib.protocol.wire.frames import Frame, FrameType, decode, encode
from emissary_lib.protocol.wire.payloads import End, Ended, Opened, Resumed
from emissary_lib.transport.deadline import Deadline
from emissary_lib.tunnel.driver import Tunnel
from emissary_lib.tunnel.loopback import tcp_pair
from tests.helpers.memory_transport import MemoryTransport, linked_pair
from tests.helpers.patience import HANG, wait_until

BOTH = pytest.mark.parametrize("role", [Role.DIALER, Role.RELAY], ids=["dialer", "relay"])
DOWN = GatewayUnreachableError("no answer")

#: What becomes of an attempt: raised, or ``None`` for a new connection.
Outcome = Exception | None


def session_of(role: Role, *, grace: float = GRACE, keepalive: KeepaliveTimes | None = None) -> Session:
    opened = Opened(Code.OK, 0, 0, bytes(32)) if role is Role.RELAY else None
    config = SessionConfig(opened=opened, grace=grace, keepalive=keepalive, peer_epoch=1)
    session = Session(role, config, now=time.monotonic())
    session.finish_opening()
    return session


class CutLink:
    """A link that the test cuts, and that comes back as the test says; then the test plays the other end.

    Attributes:
        epochs: Of the attempts, in order.
        allowed: Seconds that each attempt was given.
        dropped: Whether the tunnel dropped a connection.
        attempted: Called in each attempt.
    """

    def __init__(self, role: Role, outcomes: list[Outcome], *, then: Outcome = None) -> None:
        self._role = role
        self._outcomes = outcomes
        self._then = then
        self.epochs: list[int] = []
        self.allowed: list[float] = []
        self.dropped = False
        self.released = False
        self.attempted: Callable[[], None] = lambda: None
        self._near, self._far = linked_pair()
        self._sent: list[Frame] = []
        self._changed = threading.Condition()

    def send(self, message: Outgoing) -> None:
        self._near.send(message.data)
        frame = decode(message.data)
        with self._changed:
            self._sent.append(frame)
            self._changed.notify_all()
        if frame.type is FrameType.END:
            end = End.decode(frame.payload)
            self.give(FrameType.ENDED, Ended(end.code, end.sent, end.received).encode())
        elif frame.type is FrameType.RESUME:
            epochs = (self.epochs[-1], 1) if self._role is Role.DIALER else (1, self.epochs[-1])
            self.give(FrameType.RESUMED, Resumed(*epochs, "dialer=", "relay=").encode())

    def recv(self) -> bytes:
        return self._near.recv(None)

    def reconnect(self, epoch: int, deadline: Deadline) -> None:
        self.epochs.append(epoch)
        self.allowed.append(deadline.remaining() or 0.0)
        self.attempted()
        outcome = self._outcomes.pop(0) if self._outcomes else self._then
        if outcome is not None:
            raise outcome
        self._near, self._far = linked_pair()

    def drop(self) -> None:
        self.dropped = True
        self._near.abort()

    def close(self) -> None:
        self._near.close()

    def release(self) -> None:
        self.released = True

    def give(self, kind: FrameType, payload: bytes = b"", *, generation: int = 1) -> None:
        far: MemoryTransport = self._far
        with suppress(LinkClosedError):
            far.send(encode(Frame(kind, generation=generation, payload=payload)))

    def cut(self, code: int = 1006) -> None:
        self._far.abort(code)

    def wait_for(self, kind: FrameType) -> Frame:
        """The first frame of this type that the tunnel sent."""
        with self._changed:
            found = self._changed.wait_for(lambda: [f for f in self._sent if f.type is kind], HANG)
        assert found, f"no {kind.name} in {self._sent}"
        return found[0]


class RunningTunnel:
    """A tunnel in its thread."""

    def __init__(self, session: Session, link: CutLink, sleep: Callable[[float], object] | None) -> None:
        ours, self.user = tcp_pair()
        self.user.settimeout(HANG)
        self.events: list[Event] = []
        self.tunnel = Tunnel(session, link, ours, on_event=self.events.append, sleep=sleep)
        self.thread = threading.Thread(target=self.tunnel.run)
        self.thread.start()

    def join(self) -> None:
        self.thread.join(HANG)
        assert not self.thread.is_alive(), "the tunnel does not end"


@contextmanager
def running(
    session: Session, link: CutLink, sleep: Callable[[float], object] | None = None
) -> Iterator[RunningTunnel]:
    side = RunningTunnel(session, link, sleep)
    try:
        yield side
    finally:
        side.tunnel.abort(Code.KILLED, "the test is over")
        side.user.close()
        side.join()
        assert link.released


@BOTH
def test_the_first_attempt_is_made_at_once_and_the_user_sees_nothing(role: Role) -> None:
    link, pauses = CutLink(role, []), list[float]()
    with running(session_of(role), link, pauses.append) as side:
        side.user.sendall(b"before")
        link.wait_for(FrameType.DATA if role is Role.DIALER else FrameType.OPENED)
        link.cut()
        assert link.wait_for(FrameType.RESUME).generation == 3
        assert link.wait_for(FrameType.ACK).generation == 3
        peer = "relay=" if role is Role.DIALER else "dialer="
        assert (link.epochs, pauses, side.events) == ([2], [], [PeerMoved(peer)])


@BOTH
@pytest.mark.parametrize("code", [1001, 1006, 1008, 1009, 1011, 1012, 1013])
def test_a_close_code_says_how_to_come_back(role: Role, code: int) -> None:
    link, pauses, session = CutLink(role, []), list[float](), session_of(role)
    with running(session, link, pauses.append) as side:
        side.user.sendall(b"before")
        link.wait_for(FrameType.DATA if role is Role.DIALER else FrameType.OPENED)
        link.cut(code)
        link.wait_for(FrameType.RESUME)
        throttled = code in (1008, 1013)
        assert [each >= BACK_OFF[1] / 2 for each in pauses] == [True] * throttled
        assert (session._duplex._cap.cap == 1) is throttled
        assert session.short is (code == 1009)
        assert (MessagesShortened() in side.events) is (code == 1009)


@BOTH
def test_attempts_go_on_with_a_growing_jittered_pause_and_an_epoch_each(role: Role) -> None:
    outcomes: list[Outcome] = [DOWN, TimeoutError("late"), GatewayRefusedError("busy", http_status=429)]
    outcomes += [DOWN] * 5
    link, pauses = CutLink(role, list(outcomes)), list[float]()
    with running(session_of(role), link, pauses.append):
        link.cut()
        link.wait_for(FrameType.RESUME)
    assert link.epochs == list(range(2, 2 + len(outcomes) + 1))
    assert all(allowed <= ATTEMPT_TIMEOUT for allowed in link.allowed)
    wanted = BACK_OFF[0]
    for pause in pauses:
        assert 0.5 * wanted <= pause <= 1.5 * wanted
        wanted = min(BACK_OFF[1], wanted * 2)
    assert len(pauses) == len(outcomes)
    assert wanted == BACK_OFF[1]


@BOTH
def test_a_second_cut_begins_with_a_short_pause_again(role: Role) -> None:
    link, pauses = CutLink(role, [DOWN] * 6 + [None, DOWN]), list[float]()
    with running(session_of(role), link, pauses.append) as side:
        link.cut()
        link.wait_for(FrameType.ACK)
        link.give(FrameType.DATA, b"rows", generation=link.epochs[-1] + 1)
        assert side.user.recv(4) == b"rows"  # the connection was of use
        back = threading.Event()
        link.attempted = lambda: back.set() if len(link.epochs) == 9 else None
        link.cut()
        assert back.wait(HANG)
        assert not any(isinstance(event, Aborted) for event in side.events)
    assert pauses[-1] <= 1.5 * BACK_OFF[0]


class Flapping(CutLink):
    """Each connection but the last is made, and lost at once.

    Attributes:
        last: The number of the attempt that holds; ``None`` for none.
    """

    def __init__(self, role: Role, last: int | None) -> None:
        super().__init__(role, [])
        self.last = last

    def reconnect(self, epoch: int, deadline: Deadline) -> None:
        super().reconnect(epoch, deadline)
        if len(self.epochs) != self.last:
            self.cut()


@BOTH
def test_the_pauses_go_on_growing_while_connections_are_made_and_lost_at_once(role: Role) -> None:
    """Symptom: a proxy that lets in and then closes was asked 940 times in 45 s."""
    link, pauses, held = Flapping(role, last=9), list[float](), threading.Event()
    link.attempted = lambda: held.set() if len(link.epochs) == link.last else None
    with running(session_of(role), link, pauses.append) as side:
        link.cut()
        assert held.wait(HANG)
        assert not any(isinstance(event, Aborted) for event in side.events)
        grown = list(pauses)
    assert len(grown) == 8  # none before the first attempt, one before each other
    wanted = BACK_OFF[0]
    for pause in grown:
        assert 0.5 * wanted <= pause <= 1.5 * wanted
        wanted = min(BACK_OFF[1], wanted * 2)
    assert wanted == BACK_OFF[1]


@BOTH
def test_connections_that_are_made_and_lost_for_the_whole_grace_are_a_clear_error(role: Role) -> None:
    link = Flapping(role, last=None)
    with running(session_of(role, grace=1.5), link) as side:
        link.cut()
        with pytest.raises(ConnectionResetError):
            side.user.recv(1)
        side.join()
    code = Code.DIALER_GONE if role is Role.DIALER else Code.RELAY_GONE
    (aborted,) = [event for event in side.events if isinstance(event, Aborted)]
    assert aborted.code is code
    assert "connections in a row were accepted and then lost within 5 s" in aborted.reason
    assert "see what closes them, a proxy on the way or the gateway" in aborted.reason
    assert len(link.epochs) < 10


@BOTH
def test_a_definite_refusal_ends_it_at_once(role: Role) -> None:
    link = CutLink(role, [DOWN, LinkRefusedError("the session is over: HTTP status 409")])
    with running(session_of(role), link, lambda seconds: None) as side:
        link.cut()
        with pytest.raises(ConnectionResetError):
            side.user.recv(1)
        side.join()
    code, reason = Code.UNKNOWN_SESSION, "the session is over: HTTP status 409"
    assert side.events == [Aborted(code, reason), Finished(code)]
    assert link.epochs == [2, 3]


@BOTH
def test_a_refusal_of_the_credentials_is_told_as_such(role: Role) -> None:
    reason = "the session could not be resumed: the clock is wrong"
    link = CutLink(role, [LinkRefusedError(reason, code=Code.AUTHENTICATION_FAILED)])
    with running(session_of(role), link) as side:
        link.cut()
        side.join()
    code = Code.AUTHENTICATION_FAILED
    assert side.events == [Aborted(code, reason), Finished(code)]


def forbidden() -> LinkRefusedError:
    """A 403, which may be the gateway's own."""
    return LinkRefusedError("HTTP status 403", code=Code.AUTHENTICATION_FAILED, certain=False)


@BOTH
def test_a_single_403_is_waited_out_and_the_user_sees_nothing(role: Role) -> None:
    link, pauses = CutLink(role, [forbidden()]), list[float]()
    with running(session_of(role), link, pauses.append) as side:
        link.cut()
        link.wait_for(FrameType.RESUME)
        assert not any(isinstance(event, Aborted) for event in side.events)
    assert link.epochs == [2, 3]
    (pause,) = pauses
    assert 0.5 * BACK_OFF[1] <= pause <= 1.5 * BACK_OFF[1]


@BOTH
def test_a_second_403_is_final_whatever_came_between(role: Role) -> None:
    link = CutLink(role, [forbidden(), DOWN, forbidden()])
    with running(session_of(role), link, lambda seconds: None) as side:
        link.cut()
        side.join()
    code = Code.AUTHENTICATION_FAILED
    assert side.events == [Aborted(code, "HTTP status 403"), Finished(code)]
    assert link.epochs == [2, 3, 4]


@BOTH
def test_each_outage_may_begin_with_a_403(role: Role) -> None:
    link = CutLink(role, [forbidden(), None, forbidden()])
    with running(session_of(role), link, lambda seconds: None) as side:
        link.cut()
        link.wait_for(FrameType.RESUME)
        back = threading.Event()
        link.attempted = lambda: back.set() if len(link.epochs) == 4 else None
        link.cut()
        assert back.wait(HANG)
        assert not any(isinstance(event, Aborted) for event in side.events)


@BOTH
def test_a_403_is_final_at_once_where_the_grace_leaves_no_time_to_ask_again(role: Role) -> None:
    link, pauses = CutLink(role, [forbidden()]), list[float]()
    with running(session_of(role, grace=0.4 * BACK_OFF[1]), link, pauses.append) as side:
        link.cut()
        side.join()
    assert side.events[-1] == Finished(Code.AUTHENTICATION_FAILED)
    assert (link.epochs, pauses) == ([2], [])


@BOTH
def test_after_the_grace_it_gives_up(role: Role) -> None:
    link = CutLink(role, [], then=DOWN)
    with running(session_of(role, grace=0.2), link) as side:
        link.cut()
        with pytest.raises(ConnectionResetError):
            side.user.recv(1)
        side.join()
    code = Code.DIALER_GONE if role is Role.DIALER else Code.RELAY_GONE
    assert side.events[-1] == Finished(code)
    assert all(allowed <= 0.2 for allowed in link.allowed)


def test_an_attempt_is_given_no_more_time_than_the_session_has() -> None:
    shorter = 0.9 * ATTEMPT_TIMEOUT
    link = CutLink(Role.DIALER, [])
    with running(session_of(Role.DIALER, grace=shorter), link):
        link.cut()
        link.wait_for(FrameType.RESUME)
    assert 0 < link.allowed[0] <= shorter


@BOTH
def test_a_session_that_ends_during_an_attempt_is_told_over_the_new_connection(role: Role) -> None:
    link = CutLink(role, [])
    with running(session_of(role), link) as side:
        link.attempted = lambda: side.tunnel.abort(Code.KILLED, "enough")
        link.cut()
        with pytest.raises(ConnectionResetError):
            side.user.recv(1)
        assert End.decode(link.wait_for(FrameType.END).payload).code is Code.KILLED
        side.join()
    assert side.events == [Aborted(Code.KILLED, "enough"), Finished(Code.KILLED)]


def test_a_dead_link_is_dropped_and_replaced() -> None:
    times = KeepaliveTimes(interval=0.05, when_unacked=0.05, deadline=0.1, repeat=0.05)
    link = CutLink(Role.DIALER, [])
    with running(session_of(Role.DIALER, keepalive=times), link) as side:
        link.wait_for(FrameType.PING)
        link.wait_for(FrameType.RESUME)
    assert link.dropped
    assert side.events[0] == LinkDead()
    assert link.epochs[0] == 2


@BOTH
def test_bytes_written_during_an_outage_arrive_after_it(role: Role) -> None:
    link = CutLink(role, [DOWN])
    down, go_on = threading.Event(), threading.Event()

    def pause(_seconds: float) -> None:
        down.set()
        assert go_on.wait(HANG)

    with running(session_of(role), link, pause) as side:
        link.cut()
        assert down.wait(HANG)
        side.user.sendall(b"meanwhile")
        go_on.set()
        kind = FrameType.DATA if role is Role.DIALER else FrameType.OPENED
        assert link.wait_for(kind).payload.endswith(b"meanwhile")


def test_a_message_that_meets_a_broken_link_is_no_error() -> None:
    class Deaf(CutLink):
        def send(self, message: Outgoing) -> None:
            if not self.epochs:
                raise TransportError("broken pipe")
            super().send(message)

    link = Deaf(Role.DIALER, [])
    with running(session_of(Role.DIALER), link) as side:
        side.user.sendall(b"x")
        link.cut()
        assert link.wait_for(FrameType.DATA).payload == b"x"
        wait_until(lambda: side.events == [PeerMoved("relay=")], "the tunnel tells where its peer is")
