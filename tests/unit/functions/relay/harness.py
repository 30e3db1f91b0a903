"""A relay with everything around it in memory, except its target, which is a real loopback connection.

The test plays bridge and dialer by hand: it reads the frames that the relay sends and writes the ones that it
gets. So what a frame holds is what docs/protocol.md says, not what another session would make of it.
"""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType

from emissary_lib.bridge.launch import Launch
from emissary_lib.bridge.session import RELAY_TIME
from emissary_lib.exceptions import GatewayRefusedError, LinkClosedError
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.record import replace
from emissary_lib.protocol.session.keepalive import ProbeTimes
from emissary_lib.protocol.targets.allow_list import Target
from emissary_lib.protocol.wire.frames import Flag, Frame, FrameType, decode, encode
from emissary_lib.protocol.wire.payloads import End, Ended, Opened
from emissary_lib.transport.base import MessageTransport
from emissary_lib.transport.deadline import Deadline
from emissary_lib.tunnel.loopback import tcp_pair
from functions.relay.connector import Connected
from functions.relay.service import Relay
from tests.helpers.events import load_event
from tests.helpers.patience import HANG

#: The dialer's window, large enough not to matter.
WINDOW = 2 * 1024 * 1024


def example_launch() -> Launch:
    """The launch of ``events/relay_start.json``, expiring in time."""
    return replace(Launch.parse(load_event("relay_start")), expires=time.time() + 10 * HANG)


class FakeTransport:
    """The relay's WebSocket: :class:`MessageTransport` in memory.

    Attributes:
        sent: What the relay sent to the bridge.
        released: Whether its resources were given back.
    """

    def __init__(self) -> None:
        self.sent: queue.SimpleQueue[Frame] = queue.SimpleQueue()
        self.released = False
        self._inbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._closed = threading.Event()

    def deliver(self, text: bytes) -> None:
        """A message comes in."""
        self._inbox.put(text)

    @property
    def unread(self) -> bool:
        """Whether anything waits that nobody has read."""
        return not self._inbox.empty()

    def send(self, message: bytes, timeout: float | None = None) -> None:
        if self._closed.is_set():
            raise LinkClosedError("closed")
        self.sent.put(decode(message))

    def recv(self, timeout: float | None) -> bytes:
        try:
            text = self._inbox.get(timeout=timeout)
        except queue.Empty:
            raise TimeoutError("no message in time") from None
        if text is None:
            raise LinkClosedError("closed", close_code=1001)
        return text

    @property
    def closed(self) -> bool:
        """Whether it was closed, by either end. A relay that dials back after that is told to go."""
        return self._closed.is_set()

    def close(self) -> None:
        self._closed.set()
        self._inbox.put(None)

    def abort(self) -> None:
        self.close()

    def release(self) -> None:
        self.released = True


class FakePoster:
    """:class:`ports.PeerLink` in memory.

    Attributes:
        posted: What was posted to the dialer's connection.
        raises: Asked before each post; an exception that it gives is raised instead.
    """

    def __init__(self) -> None:
        self.posted: queue.SimpleQueue[tuple[str, Frame]] = queue.SimpleQueue()
        self.raises: Callable[[], Exception | None] = lambda: None

    def post(self, connection_id: str, message: bytes) -> None:
        error = self.raises()
        if error is not None:
            raise error
        self.posted.put((connection_id, decode(message)))

    def delete(self, connection_id: str) -> None:
        raise AssertionError("a relay deletes no connection")


class RelayHarness:
    """One relay serving one session; a context manager that ends it.

    Args:
        dial_back: Answers the relay's claim; None for a bridge that grants it at once.
        connect: Connects to the target; None for a target that accepts at once, see :attr:`target`.
        launch: What the relay is started with.
        remaining: Seconds until Lambda ends the invocation.
        grace: Seconds for which a side without its WebSocket is waited for.
        probing: When to ask whether the dialer is still there; None for the usual times.

    Attributes:
        target: The target's end of its connection.
        again: What the next dial-back gives, if it is to be let in again.
        claims: The headers of each dial-back.
        patience: How long each dial-back was to be waited for, in seconds.
        outcome: What ``serve`` returned.
    """

    def __init__(
        self,
        *,
        dial_back: Callable[[Mapping[str, str]], MessageTransport] | None = None,
        connect: Callable[[Target, Deadline], Connected] | None = None,
        launch: Launch | None = None,
        remaining: float = RELAY_TIME,
        grace: float = 60.0,
        probing: ProbeTimes | None = None,
    ) -> None:
        self.transport = FakeTransport()
        self.again: FakeTransport | None = None
        self.poster = FakePoster()
        self.target, self.near = tcp_pair()
        self.target.settimeout(HANG)
        self.claims: list[dict[str, str]] = []
        self.patience: list[float | None] = []
        self.launch = launch or example_launch()
        self.outcome: Code | None = None
        self._answer = dial_back or (lambda headers: self.transport)
        accepted = Connected(Code.OK, self.near, ("10.0.0.7", 5432))
        relay = Relay(
            self._dial_back,
            connect or (lambda target, deadline: accepted),
            self.poster,
            sleep=lambda seconds: None,
            grace=grace,
            probing=probing or ProbeTimes(),
        )
        self._ended = threading.Event()
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._serve, args=(relay, remaining), name="relay under test")

    def _serve(self, relay: Relay, remaining: float) -> None:
        try:
            self.outcome = relay.serve(self.launch, remaining)
        except BaseException as exc:
            self._failed = exc
        finally:
            self._ended.set()

    def _dial_back(self, headers: Mapping[str, str], deadline: Deadline) -> MessageTransport:
        self.claims.append(dict(headers))
        self.patience.append(deadline.timeout)
        if self.again is not None:
            again, self.again = self.again, None
            return again
        if self.transport.closed:
            raise GatewayRefusedError("the session is over", http_status=409)
        return self._answer(headers)

    def __enter__(self) -> RelayHarness:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.transport.close()
        self._thread.join(HANG)
        self.target.close()
        self.near.close()
        assert not self._thread.is_alive(), "the relay did not return"

    def result(self) -> Code | None:
        """Wait for the relay to return; what it returned, or raise what it raised."""
        assert self._ended.wait(HANG), "the relay did not return"
        self._thread.join(HANG)
        if self._failed is not None:
            raise self._failed
        return self.outcome

    # -- the dialer ---------------------------------------------------------------------------

    def next_post(self, *kinds: FrameType) -> Frame:
        """The next frame that comes to the dialer; of these types, if any are named."""
        deadline = time.monotonic() + HANG
        while True:
            connection, frame = self.poster.posted.get(timeout=max(0.01, deadline - time.monotonic()))
            assert connection == self.launch.dialer_connection
            if not kinds or frame.type in kinds:
                return frame

    def wait_for_opened(self) -> tuple[Frame, Opened, bytes]:
        """The frame OPENED: itself, its parameters and its stream bytes.

        It is the first that is sent, but each is posted by a thread of its own: what overtook it comes after.
        """
        overtook = []
        while (frame := self.next_post()).type is not FrameType.OPENED:
            overtook.append((self.launch.dialer_connection, frame))
        for each in overtook:
            self.poster.posted.put(each)
        parameters, data = Opened.decode(frame.payload)
        return frame, parameters, data

    def next_fin(self) -> Frame:
        """The next frame with which the relay's stream ends."""
        while not (frame := self.next_post(FrameType.DATA, FrameType.OPENED)).flags & Flag.FIN:
            pass
        return frame

    def stream(self, size: int, start: int = 0) -> bytes:
        """``size`` bytes of the relay's stream from ``start`` on; acknowledges what comes."""
        got = bytearray()
        while len(got) < size:
            frame = self.next_post(FrameType.DATA, FrameType.OPENED)
            data = Opened.decode(frame.payload)[1] if frame.type is FrameType.OPENED else frame.payload
            skip = start + len(got) - frame.offset
            if 0 <= skip <= len(data):
                got += data[skip:]
                self.acknowledge(start + len(got))
        return bytes(got)

    def say(
        self, kind: FrameType, payload: bytes = b"", *, offset: int = 0, ack: int = 0, flags: int = 0
    ) -> None:
        """A frame of the dialer's or the bridge's comes in over the relay's WebSocket."""
        frame = Frame(kind, flags, 2, WINDOW, offset, ack, payload)
        self.transport.deliver(encode(frame))

    def acknowledge(self, position: int) -> None:
        """The dialer has received everything below ``position``."""
        self.say(FrameType.ACK, offset=self.launch.client_offset, ack=position)

    def hang_up(self, ack: int) -> None:
        """The dialer ends its stream where the SOCKS5 exchange ended it, acknowledging ``ack``."""
        self.say(FrameType.DATA, offset=self.launch.client_offset, ack=ack, flags=Flag.FIN)

    # -- the bridge ---------------------------------------------------------------------------

    def wait_for_end(self) -> End:
        """The relay's END; it is answered with ENDED."""
        frame = self.transport.sent.get(timeout=HANG)
        assert frame.type is FrameType.END
        end = End.decode(frame.payload)
        self.say(FrameType.ENDED, Ended(end.code, end.received, end.sent).encode())
        return end

    def target_closes(self) -> None:
        self.target.shutdown(socket.SHUT_WR)
