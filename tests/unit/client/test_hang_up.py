"""A program that hangs up while it is dialled for: its dial ends, and whatever it wrote still arrives."""

from __future__ import annotations

import contextlib
import functools
import logging
import pathlib
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from emissary_lib.client.forward import Forward, Forwarded, Happening
from emissary_lib.client.hang_up import ConnectedDeadline, has_hung_up
from emissary_lib.client.listening import LocalAddress
from emissary_lib.client.progress import Progress
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.targets.allow_list import Target
from emissary_lib.protocol.wire.frames import FrameType, decode
from emissary_lib.protocol.wire.payloads import End, Reset
from emissary_lib.transport.backoff import wait
from emissary_lib.tunnel.loopback import reset, tcp_pair
from tests.helpers.bridge import KEY, TARGET, Behaviour, Bridge, Relay, echo
from tests.helpers.kinds import OWN, Kind
from tests.helpers.marks import with_unix_sockets
from tests.helpers.patience import HANG, wait_until
from tests.helpers.ws_server import Peer, Request, WsServer, refusal

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture(params=["tcp", "unix"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """Our end and the program's."""
    ours, theirs = tcp_pair() if request.param == "tcp" else socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


def test_who_is_there_has_not_hung_up(pair: Pair) -> None:
    ours, theirs = pair
    assert not has_hung_up(ours)
    theirs.sendall(b"x")
    wait_until(lambda: peek(ours) == b"x", "it comes")
    assert not has_hung_up(ours)
    assert ours.recv(2) == b"x"


def peek(sock: socket.socket) -> bytes | None:
    try:
        return sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return None


@pytest.mark.parametrize("ends", [socket.socket.close, lambda sock: sock.shutdown(socket.SHUT_WR)])
def test_an_end_with_nothing_before_it_is_a_hang_up(
    pair: Pair, ends: Callable[[socket.socket], None]
) -> None:
    ours, theirs = pair
    ends(theirs)
    wait_until(lambda: has_hung_up(ours), "the end")


@pytest.mark.parametrize("ends", [socket.socket.close, lambda sock: sock.shutdown(socket.SHUT_WR)])
def test_an_end_behind_bytes_is_none(pair: Pair, ends: Callable[[socket.socket], None]) -> None:
    ours, theirs = pair
    theirs.sendall(b"x")
    ends(theirs)
    wait_until(lambda: peek(ours) == b"x", "it comes")
    assert not has_hung_up(ours)


@pytest.mark.parametrize("written", [b"", b"x"])
def test_a_reset_is_a_hang_up_whatever_was_written(written: bytes) -> None:
    ours, theirs = tcp_pair()
    ours.setblocking(False)
    with ours:
        theirs.sendall(written)
        reset(theirs)
        wait_until(lambda: has_hung_up(ours), "the reset")


def test_an_end_need_not_count_and_a_reset_behind_it_does(pair: Pair) -> None:
    ours, theirs = pair
    theirs.shutdown(socket.SHUT_WR)
    wait_until(lambda: has_hung_up(ours), "the end")
    assert not has_hung_up(ours, at_end=False)
    reset(theirs)
    if ours.family == socket.AF_INET:  # Unix sockets have no resets
        wait_until(lambda: has_hung_up(ours, at_end=False), "the reset")


def test_a_connection_that_is_closed_here_is_over() -> None:
    ours, theirs = tcp_pair()
    ours.close()
    theirs.close()
    assert has_hung_up(ours)


def test_a_hang_up_ends_a_deadline_and_leaves_time_to_say_so(pair: Pair) -> None:
    ours, theirs = pair
    deadline = ConnectedDeadline(100.0, ours, lambda: 5.0)
    assert (deadline.remaining(), deadline.passed(), deadline.hung_up) == (100.0, False, False)
    assert deadline.within(200.0).remaining() == 100.0
    theirs.close()
    wait_until(deadline.passed, "the end")
    assert (deadline.remaining(), deadline.hung_up) == (0.0, True)
    assert deadline.within(1.0).remaining() == 1.0


@pytest.mark.parametrize("seconds", [None, 0.1, 100.0])
def test_nobody_waits_for_longer_than_to_the_next_look(pair: Pair, seconds: float | None) -> None:
    deadline = ConnectedDeadline(None, pair[0])
    wait = deadline.cap(seconds)
    assert wait is not None
    assert 0.0 < wait <= 0.25


def wait_for_another_attempt(deadline: ConnectedDeadline) -> None:
    with contextlib.suppress(InterruptedError):  # there is no time for it: it has hung up already
        progress = Progress(Target.parse(TARGET))
        pause = functools.partial(progress.pause, deadline=deadline)
        wait(10 * HANG, deadline, InterruptedError(), sleep=pause)


@pytest.mark.parametrize(
    "waits",
    [lambda each: each.wait(threading.Event()), wait_for_another_attempt],
    ids=["event", "attempt"],
)
def test_a_hang_up_ends_a_wait(pair: Pair, waits: Callable[[ConnectedDeadline], None]) -> None:
    ours, theirs = pair
    waiting = threading.Thread(target=waits, args=[ConnectedDeadline(None, ours)])
    waiting.start()
    theirs.close()
    waiting.join(HANG / 2)
    assert not waiting.is_alive()


def test_a_wait_ends_with_its_event(pair: Pair) -> None:
    event = threading.Event()
    event.set()
    ConnectedDeadline(None, pair[0]).wait(event)


class Watched:
    """A forward whose connections are written down, for a program that comes and goes.

    Attributes:
        happenings: What became of connections, in order, each with a number from 1.
        failures: What was reported as one.
    """

    def __init__(self, kind: Kind, url: str, listen: LocalAddress = ("127.0.0.1", 0)) -> None:
        self.happenings: list[tuple[Happening, int]] = []
        self._seen: list[Forwarded] = []
        self.dialer = kind.dialer(url, KEY)
        self.forward = self.dialer.forward(TARGET, listen, timeout=10 * HANG)
        self.forward.on_happening = self._note
        self.failures: list[Exception] = []
        self.forward.on_failure = self.failures.append

    def _note(self, happening: Happening, connection: Forwarded) -> None:
        if connection not in self._seen:
            self._seen.append(connection)
        self.happenings.append((happening, self._seen.index(connection) + 1))


STEPS = ["the answer to the upgrade", "the relay", "another attempt"]


class Stuck:
    """A gateway that lets a dial get no further than to a step."""

    def __init__(self, step: str) -> None:
        self.reached = threading.Event()
        self.gate = threading.Event()
        self.messages: list[bytes] = []
        self._step = step
        self.server = WsServer(self._serve, answer=self._door)

    def _door(self, request: Request) -> bytes | None:
        if self._step == "the answer to the upgrade":
            self.reached.set()
            assert self.gate.wait(HANG)
        if self._step == "another attempt":
            self.reached.set()
            return refusal(503)
        return None

    def _serve(self, peer: Peer) -> None:
        while (text := peer.read_message()) is not None:
            self.messages.append(text)
            self.reached.set()


@pytest.mark.parametrize("step", STEPS)
def test_a_dial_whose_program_hangs_up_is_given_up_wherever_it_is(
    step: str, caplog: pytest.LogCaptureFixture, kind: Kind
) -> None:
    """Symptom: the dial went on for its whole timeout, and its session took the place of another."""
    stuck = Stuck(step)
    with stuck.server:
        watched = Watched(kind, stuck.server.url)
        with watched.forward as address:
            socket_ = socket.create_connection(address, HANG)
            assert stuck.reached.wait(HANG)
            socket_.close()
            wait_until(lambda: watched.happenings == [(Happening.GIVEN_UP, 1)], "it is given up")
        stuck.gate.set()
        watched.dialer.close()
        assert (address.last_error, watched.failures) == (None, [])
        assert [each.levelname for each in caplog.records if each.levelno > logging.INFO] == []
    if step == "the relay":
        frames = {frame.type: frame.payload for frame in map(decode, stuck.messages)}
        assert End.decode(frames[FrameType.END]).code is Code.DIALER_RESET
        said = Reset.decode(frames[FrameType.RESET])
        assert (said.code, said.reason) == (Code.DIALER_RESET, "the dial was given up")


def test_eight_programs_that_hang_up_cost_no_place_of_a_ninth() -> None:
    """Symptom: five clients that had hung up long ago held the five sessions that there may be."""
    with Bridge(Behaviour(silent=True, script=echo)) as bridge:
        watched = Watched(OWN, bridge.url)
        with watched.forward as address:
            socks = [socket.create_connection(address, HANG) for _ in range(8)]
            wait_until(lambda: len(bridge.messages) == 8, "eight dials")
            for sock in socks:
                sock.close()
            wait_until(lambda: len(watched.happenings) == 8, "all are given up")
            ends = [decode(text) for text in bridge.messages if decode(text).type is FrameType.END]
            assert len(ends) == 8
            bridge.behaviour.silent = False
            with socket.create_connection(address, HANG) as ninth:
                ninth.sendall(b"x")
                assert ninth.recv(1) == b"x"


@pytest.mark.parametrize("place", ["tcp", pytest.param("unix", marks=with_unix_sockets)])
@pytest.mark.parametrize("half", [False, True], ids=["closed", "half-closed"])
def test_what_was_written_before_the_end_is_dialled_for_all_the_same(
    half: bool, place: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, kind: Kind
) -> None:
    monkeypatch.chdir(tmp_path)
    gate = threading.Event()

    def script(relay: Relay) -> None:
        relay.end_with_dialer()
        assert gate.wait(HANG)  # as long as this lasts, the dial does

    with Bridge(Behaviour(script=script)) as bridge:
        watched = Watched(kind, bridge.url, "./socket" if place == "unix" else ("127.0.0.1", 0))
        with watched.forward as address:
            sock = socket.socket(socket.AF_UNIX if place == "unix" else socket.AF_INET)
            with sock:
                sock.connect(address.path or address)
                sock.sendall(b"hello")
                sock.shutdown(socket.SHUT_WR)
                if not half:
                    sock.close()
                wait_until(lambda: bridge.server.requests, "the dial")
                assert not watched.happenings
                gate.set()
                assert bridge.relay().read_to_end() == b"hello"
                wait_until(lambda: len(watched.happenings) == 2, "its end")
        assert watched.happenings == [(Happening.OPENED, 1), (Happening.CLOSED, 1)]


def test_a_dial_that_fails_of_itself_is_a_failure_though_the_program_has_gone() -> None:
    told: list[Exception] = []
    gone = threading.Event()

    def serve(sock: socket.socket, accepted: Forwarded) -> None:
        assert gone.wait(HANG)
        raise OSError("no descriptor")

    forward = Forward(("127.0.0.1", 0), serve)
    forward.on_failure = told.append
    with forward as address:
        socket.create_connection(address, HANG).close()
        gone.set()
        wait_until(lambda: told, "it is told")
