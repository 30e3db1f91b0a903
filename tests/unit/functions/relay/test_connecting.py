"""The relay while it connects to its target: it hears of its session's end, and loses nothing else."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

import pytest

from emissary_lib.exceptions import GatewayRefusedError, LinkClosedError
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.targets.allow_list import Target
from emissary_lib.protocol.wire.frames import Flag, Frame, FrameType, encode
from emissary_lib.protocol.wire.payloads import Ended, Reset, Resumed
from emissary_lib.transport.base import MessageTransport
from emissary_lib.transport.deadline import Deadline
from functions.relay.connecting import Arrivals, Connecting
from functions.relay.connector import Connected
from tests.helpers.clock import Clock
from tests.helpers.patience import HANG, wait_until
from tests.unit.functions.relay.harness import FakeTransport, RelayHarness

GRACE = 60.0


class SilentTarget:
    """Answers when the test lets it, or when nobody waits for it any more.

    Attributes:
        answers: Set by the test.
        given_up: Whether it was waited for no longer, well before its time.
    """

    def __init__(self) -> None:
        self.answers = threading.Event()
        self.given_up = False
        self.connected = Connected(Code.TARGET_TIMED_OUT)

    def connect(self, target: Target, deadline: Deadline) -> Connected:
        deadline.wait(self.answers)
        # Of time that has run out, none is left; what is brought forward leaves some for a goodbye.
        self.given_up = deadline.passed() and bool(deadline.within(1.0).remaining())
        return self.connected


def text(kind: FrameType, payload: bytes = b"", *, offset: int = 0) -> bytes:
    return encode(Frame(kind, 0, 2, 65_536, offset, 0, payload))


RESET = text(FrameType.RESET, Reset(Code.DIALER_RESET, "the program hung up").encode())
ENDED = text(FrameType.ENDED, Ended(Code.KILLED, 0, 0, "by an operator").encode())


@pytest.mark.parametrize(
    ("last_word", "code"), [(RESET, Code.DIALER_RESET), (ENDED, Code.KILLED)], ids=["RESET", "ENDED"]
)
def test_session_that_ends_while_the_target_is_silent_lets_the_relay_leave(
    last_word: bytes, code: Code
) -> None:
    target = SilentTarget()
    with RelayHarness(connect=target.connect) as harness:
        wait_until(lambda: harness.claims, "the claim")
        harness.transport.deliver(text(FrameType.ACK))
        harness.transport.deliver(last_word)
        if code is Code.DIALER_RESET:
            harness.transport.deliver(text(FrameType.ENDED, Ended(code, 0, 0).encode()))
        assert harness.result() is code
        assert target.given_up
        assert harness.poster.posted.empty(), "nobody is there for OPENED"
        assert harness.transport.closed
        assert harness.transport.released


def test_relay_says_goodbye_first_and_then_waits_for_the_end_of_the_attempt() -> None:
    """The goodbye frees its place; a frozen environment must hold no attempt."""
    over = threading.Event()

    def slow(target: Target, deadline: Deadline) -> Connected:
        deadline.wait(threading.Event())
        wait_until(lambda: harness.transport.released, "the relay's goodbye")
        threading.Event().wait(0.1)  # longer than the relay needs to return
        over.set()
        return Connected(Code.TARGET_TIMED_OUT)

    with RelayHarness(connect=slow) as harness:
        wait_until(lambda: harness.claims, "the claim")
        harness.transport.deliver(ENDED)
        assert harness.result() is Code.KILLED
        assert over.is_set()


def test_relay_that_hears_a_reset_only_reports_the_end_itself() -> None:
    target = SilentTarget()
    with RelayHarness(connect=target.connect) as harness:
        wait_until(lambda: harness.claims, "the claim")
        harness.transport.deliver(RESET)
        assert harness.wait_for_end().code is Code.DIALER_RESET
        assert harness.result() is Code.DIALER_RESET
        assert target.given_up


def test_bytes_that_come_while_the_target_is_silent_reach_it_in_order() -> None:
    target = SilentTarget()
    with RelayHarness(connect=target.connect) as harness:
        wait_until(lambda: harness.claims, "the claim")
        start = harness.launch.client_offset
        harness.say(FrameType.DATA, b"early ", offset=start)
        harness.say(FrameType.DATA, b"and ", offset=start + 6)
        wait_until(lambda: not harness.transport.unread, "the relay's look")
        target.connected = Connected(Code.OK, harness.near, ("10.0.0.7", 5432))
        target.answers.set()
        frame, parameters, _data = harness.wait_for_opened()
        assert parameters.code is Code.OK
        assert frame.ack == start, "OPENED is the first word, before anything is acknowledged"
        harness.say(FrameType.DATA, b"late", offset=start + 10, flags=int(Flag.FIN))
        got = b""
        while data := harness.target.recv(100):
            got += data
        assert got == b"early and late"


def test_websocket_that_is_lost_while_the_target_is_silent_is_replaced_after_it_has_answered() -> None:
    target, second = SilentTarget(), FakeTransport()
    with RelayHarness(connect=target.connect) as harness:
        wait_until(lambda: harness.claims, "the claim")
        harness.again = second
        harness.transport.close()
        wait_until(lambda: not harness.transport.unread, "the relay's look")
        target.connected = Connected(Code.OK, harness.near, ("10.0.0.7", 5432))
        target.answers.set()
        assert second.sent.get(timeout=HANG).type is FrameType.RESUME
        harness.transport = second
        harness.say(FrameType.RESUMED, Resumed(1, 2, harness.launch.dialer_connection, "relay=").encode())
        _frame, parameters, _data = harness.wait_for_opened()
        assert parameters.code is Code.OK
        assert not target.given_up


def test_websocket_that_is_gone_beyond_the_grace_lets_the_relay_leave() -> None:
    target = SilentTarget()
    with RelayHarness(connect=target.connect, grace=0.1) as harness:
        wait_until(lambda: harness.claims, "the claim")
        harness.transport.close()
        assert harness.result() is Code.RELAY_GONE
        assert target.given_up
        assert len(harness.claims) == 1


def test_relay_that_is_not_let_in_leaves_a_silent_target_at_once() -> None:
    def taken(headers: Mapping[str, str]) -> MessageTransport:
        raise GatewayRefusedError("taken", http_status=409)

    target = SilentTarget()
    with RelayHarness(dial_back=taken, connect=target.connect) as harness:
        assert harness.result() is None
        assert target.given_up


# -- the pieces, without threads of their own --------------------------------------------------


class Inbox(FakeTransport):
    """Gives what there is, and waits for nothing: its reader's time never passes."""

    def recv(self, timeout: float | None) -> bytes:
        return super().recv(0.001 if timeout is not None else HANG)


def test_loss_is_borne_for_the_grace_and_told_to_who_reads_next() -> None:
    inbox, clock = Inbox(), Clock()
    arrivals = Arrivals(inbox, GRACE, lambda: clock.now)
    inbox.deliver(b"a message")
    inbox.close()
    assert not arrivals.over()
    clock.advance(GRACE - 1)
    assert not arrivals.over()
    clock.advance(1)
    assert arrivals.over()
    assert arrivals.recv(None) == b"a message"
    for _ in range(2):
        with pytest.raises(LinkClosedError):
            arrivals.recv(None)


def test_end_that_was_seen_is_read_by_a_session_whose_target_has_answered_all_the_same() -> None:
    inbox = Inbox()
    arrivals = Arrivals(inbox, GRACE)
    for each in (b"{}", b"no frame", RESET, b"behind it"):
        inbox.deliver(each)
    assert arrivals.over()
    assert [arrivals.recv(None) for _ in range(4)] == [b"{}", b"no frame", RESET, b"behind it"]


def test_a_flood_stays_in_the_kernel() -> None:
    inbox = Inbox()
    arrivals = Arrivals(inbox, GRACE)
    for number in range(100):
        inbox.deliver(b"%d" % number)
    assert not arrivals.over()
    assert not arrivals.over()
    left = []
    while inbox.unread:
        left.append(inbox.recv(None))
    assert left == [b"%d" % number for number in range(64, 100)]


def test_connection_that_comes_when_nobody_wants_it_is_closed() -> None:
    goes_on, harness = threading.Event(), RelayHarness()

    def deaf(deadline: Deadline) -> Connected:  # waits for a name server, which nothing interrupts
        assert goes_on.wait(HANG)
        return Connected(Code.OK, harness.near)

    given_up: Callable[[], bool] = lambda: True  # noqa: E731
    connecting = Connecting(deaf, HANG)
    assert connecting.result(HANG, given_up) is None
    goes_on.set()
    connecting.abandon(HANG)
    assert harness.near.fileno() == -1
    harness.target.close()
