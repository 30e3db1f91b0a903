"""The relay of a shared session as a whole, with bridge and dialer played by hand."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.mux.dialer import DialerMultiplexer
from emissary_lib.protocol.mux.events import Declined, Event, Opened, Refused
from emissary_lib.protocol.mux.limits import SHARED_TARGET, MuxLimits
from emissary_lib.protocol.record import replace
from emissary_lib.protocol.targets.allow_list import Target
from emissary_lib.protocol.wire.frames import Flag, Frame, FrameType
from emissary_lib.protocol.wire.payloads import CAPABILITY_SHARED, Connections, End, Ended
from emissary_lib.protocol.wire.payloads import Opened as Parameters
from emissary_lib.transport.deadline import Deadline
from emissary_lib.tunnel.loopback import tcp_pair
from functions.relay.connector import Connected
from tests.helpers.patience import HANG, wait_until
from tests.unit.functions.conftest import Figures
from tests.unit.functions.relay.harness import RelayHarness, example_launch
from tests.unit.functions.relay.test_requests import Lines, lines  # noqa: F401 - a fixture

#: RFC 1928 section 6: version 5, success, reserved, IPv4, 0.0.0.0, port 0 (docs/protocol.md 11.1-3).
REPLY = bytes.fromhex("05 00 00 01 00 00 00 00 00 00")


def shared_harness(connect: Callable[[Target, Deadline], Connected], **options: Any) -> RelayHarness:
    launch = replace(example_launch(), target=SHARED_TARGET)
    return RelayHarness(launch=launch, connect=connect, **options)


class HandDialer:
    """The dialer's side of the session's streams, carried by hand."""

    def __init__(self, harness: RelayHarness) -> None:
        self._harness = harness
        self.mux = DialerMultiplexer(MuxLimits(), time.monotonic())
        self._sent = harness.launch.client_offset
        self._pieces: dict[int, bytes] = {}
        self.received = 0
        self.parameters: Parameters | None = None
        self.ended = False

    def say(self, *, fin: bool = False) -> None:
        """Send what there is."""
        data = self.mux.data_to_send(16_000)
        flags = Flag.FIN if fin else 0
        self._harness.say(FrameType.DATA, data, offset=self._sent, ack=self.received, flags=flags)
        self._sent += len(data)

    def hear(self) -> list[Event]:
        """Take the next frame of the relay's, and tell what has happened."""
        frame = self._harness.next_post(FrameType.DATA, FrameType.OPENED)
        self._take(frame)
        events = []
        while event := self.mux.next_event():
            events.append(event)
        return events

    def _take(self, frame: Frame) -> None:
        data, skip = frame.payload, len(self._harness.launch.server_bytes) + len(REPLY)
        if frame.type is FrameType.OPENED:
            self.parameters, data = Parameters.decode(frame.payload)
            assert data[:skip] == self._harness.launch.server_bytes + REPLY
        self._pieces[frame.offset] = data
        while (piece := self._pieces.pop(self.received, None)) is not None:
            start = max(0, skip - self.received)
            self.received += len(piece)
            if piece[start:]:
                self.mux.receive(piece[start:], time.monotonic())
            if not piece:
                break
        self.ended = self.ended or bool(frame.flags & Flag.FIN)
        if self.ended:
            self.received += 1
        self._harness.acknowledge(self.received)

    def wait_for(self, kind: type[Event]) -> Event:
        while True:
            for event in self.hear():
                if isinstance(event, kind):
                    return event


def bridge_frame(harness: RelayHarness, kind: FrameType) -> Frame:
    """The next frame of this type that comes to the bridge."""
    while (frame := harness.transport.sent.get(timeout=HANG)).type is not kind:
        pass
    return frame


class Reached:
    """Connects to targets by name: ``db`` is reached, all others are not on the list."""

    def __init__(self) -> None:
        self.asked: list[Target] = []
        self.near, self.far = tcp_pair()
        self.far.settimeout(HANG)

    def connect(self, target: Target, deadline: Deadline) -> Connected:
        self.asked.append(target)
        if target.host == "db":
            return Connected(Code.OK, self.near, ("10.0.0.7", target.port))
        return Connected(Code.TARGET_NOT_ALLOWED)

    def close(self) -> None:
        self.near.close()
        self.far.close()


def test_a_shared_session_from_its_opening_to_its_end(lines: Lines, figures: Figures) -> None:  # noqa: F811
    reached = Reached()
    with shared_harness(reached.connect) as harness:
        dialer = HandDialer(harness)
        stream, other = dialer.mux.open(Target("db", 5432)), dialer.mux.open(Target("example.com", 80))
        dialer.say()
        answers: dict[int, Event] = {}
        while len(answers) < 2:
            for event in dialer.hear():
                if isinstance(event, Opened | Refused):
                    answers[event.stream] = event
        assert answers == {stream: Opened(stream), other: Refused(other, Code.TARGET_NOT_ALLOWED)}
        assert dialer.parameters
        assert dialer.parameters.code is Code.OK
        assert dialer.parameters.capabilities == CAPABILITY_SHARED
        assert sorted(map(str, reached.asked)) == ["db:5432", "example.com:80"], "and nothing else"
        assert Connections.decode(bridge_frame(harness, FrameType.CONNECTIONS).payload).opened <= 1
        dialer.mux.send_data(stream, b"question")
        dialer.mux.send_eof(stream)
        dialer.say()
        assert reached.far.recv(8, socket.MSG_WAITALL) == b"question"
        assert reached.far.recv(1) == b""
        reached.far.sendall(b"answer")
        reached.far.shutdown(socket.SHUT_WR)
        got = b""
        while dialer.mux.connections:
            dialer.hear()
            piece = dialer.mux.peek(stream, 100)
            got += piece
            dialer.mux.consume(stream, len(piece))
        assert got == b"answer"
        dialer.say(fin=True)
        while not dialer.ended:
            dialer.hear()
        end = End.decode(bridge_frame(harness, FrameType.END).payload)
        assert (end.code, end.connections) == (Code.OK, 1)
        harness.transport.close()
        assert harness.result() is Code.OK
    reached.close()
    assert [line["code"] for line in lines.of("connected")] == ["OK"]
    assert [line["code"] for line in lines.of("not connected")] == ["TARGET_NOT_ALLOWED"]
    (line,) = lines.of("connection ended")
    assert (line["code"], line["dialer_bytes"], line["relay_bytes"]) == ("OK", 8, 6)
    (line,) = lines.of("session ended")
    assert (line["code"], line["connections"]) == ("OK", 1)
    titles = ("SessionOpened", "ConnectionOpened", "ConnectionFailed")
    assert {title: figures.total(title) for title in titles} == dict.fromkeys(titles, 1)


def test_the_first_request_may_come_before_the_relay_has_said_a_word() -> None:
    reached = Reached()
    with shared_harness(reached.connect) as harness:
        dialer = HandDialer(harness)
        stream = dialer.mux.open(Target("db", 5432))
        dialer.say()
        assert dialer.wait_for(Opened) == Opened(stream)
    reached.close()


def test_a_relay_that_has_little_time_takes_no_connection() -> None:
    reached = Reached()
    with shared_harness(reached.connect, remaining=30.0) as harness:
        dialer = HandDialer(harness)
        stream = dialer.mux.open(Target("db", 5432))
        dialer.say()
        assert dialer.wait_for(Declined) == Declined(stream)
        assert dialer.mux.draining
    assert reached.asked == []
    reached.close()


def test_the_session_s_end_is_logged_though_an_attempt_to_connect_hangs(lines: Lines) -> None:  # noqa: F811
    """Symptom: the relay waited for a name server first, and was killed at Lambda's limit without a line."""
    began, go_on = threading.Event(), threading.Event()

    def connect(target: Target, deadline: Deadline) -> Connected:
        began.set()
        assert go_on.wait(HANG)
        return Connected(Code.NAME_NOT_FOUND)

    with shared_harness(connect) as harness:
        dialer = HandDialer(harness)
        dialer.mux.open(Target("db", 5432))
        dialer.say()
        assert began.wait(HANG)
        harness.say(FrameType.ENDED, Ended(Code.KILLED, 0, 0).encode())
        wait_until(lambda: lines.of("session ended"), "its end is logged")
        go_on.set()
        assert harness.result() is Code.KILLED
    assert [line["code"] for line in lines.of("session ended")] == ["KILLED"]
    assert [line["code"] for line in lines.of("not connected")] == ["GIVEN_UP"]
