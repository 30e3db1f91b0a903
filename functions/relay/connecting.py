"""Connects to the target while the session is claimed, for as long as anybody wants the connection."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from emissary_lib.exceptions import TransportError
from emissary_lib.protocol.codes import MEANINGS, Code
from emissary_lib.protocol.errors import RemoteProtocolError
from emissary_lib.protocol.session.session import Session
from emissary_lib.protocol.wire.frames import FrameType, decode
from emissary_lib.transport.base import MessageTransport
from emissary_lib.transport.deadline import LOOK, AbortableDeadline, Deadline
from functions.common import logs
from functions.relay.connector import Connected

#: Seconds that a look waits for the rest of a message. The target's answer may come meanwhile.
_GLANCE: Final = 0.01

#: Messages that are kept at most, several times what an honest dialer has under way; others go on waiting.
_MOST_HELD: Final = 64


class Arrivals:
    """The relay's WebSocket, looked at before its session reads it: a :class:`MessageTransport`.

    Args:
        transport: The WebSocket.
        grace: Seconds for which its loss is borne.
        clock: A monotonic clock.

    Thread safety: :meth:`over`, :meth:`end` and :meth:`recv` are for one thread at a time.
    """

    def __init__(
        self, transport: MessageTransport, grace: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._transport = transport
        self._grace = grace
        self._clock = clock
        self._held: deque[bytes] = deque()
        self._last_word: bytes | None = None  # what ends the session: nothing behind it matters
        self._loss: tuple[TransportError, float] | None = None

    def over(self) -> bool:
        """Whether the session has ended: by what came, or because the WebSocket is gone too long."""
        self._look()
        lost_for = 0.0 if self._loss is None else self._clock() - self._loss[1]
        return self._last_word is not None or (self._loss is not None and lost_for >= self._grace)

    def end(self, session: Session) -> None:
        """Let a session that has sent nothing know that it is over, and why."""
        if self._last_word is None:
            session.link_refused(Code.RELAY_GONE, MEANINGS[Code.RELAY_GONE])
        else:
            session.receive_message(self._last_word, self._clock())
            self._last_word = None

    def _look(self) -> None:
        while self._last_word is None and self._loss is None and len(self._held) < _MOST_HELD:
            try:
                message = self._transport.recv(_GLANCE)
            except TimeoutError:
                return
            except TransportError as exc:
                self._loss = exc, self._clock()
            else:
                if _ends_session(message):
                    self._last_word = message
                else:
                    self._held.append(message)

    def recv(self, timeout: float | None) -> bytes:
        """The next message, of those that were looked at first."""
        if self._held:
            return self._held.popleft()
        if self._last_word is not None:
            message, self._last_word = self._last_word, None
            return message
        if self._loss is not None:
            raise self._loss[0]
        return self._transport.recv(timeout)

    def send(self, message: bytes, timeout: float | None = None) -> None:
        """As of the WebSocket."""
        self._transport.send(message, timeout)

    def close(self) -> None:
        """As of the WebSocket."""
        self._transport.close()

    def release(self) -> None:
        """As of the WebSocket."""
        self._transport.release()

    def abort(self) -> None:
        """As of the WebSocket."""
        self._transport.abort()


def _ends_session(message: bytes) -> bool:
    try:
        return decode(message).type in (FrameType.RESET, FrameType.ENDED)
    except RemoteProtocolError:  # the gateway's word, or what the session will refuse
        return False


def outcome_of(connect: Callable[[], Connected], **fields: str) -> Connected:
    """What ``connect`` gives; ``TARGET_FAILED`` if it fails otherwise than it should.

    Else whoever waits would wait for an outcome that never comes.

    Args:
        connect: Connects to a target.
        fields: Of the log's line about that.
    """
    try:
        return connect()
    except Exception as exc:
        logs.error("connecting to the target failed", exc, **fields)
        return Connected(Code.TARGET_FAILED)


class Connecting:
    """A connection attempt in a thread of its own, while the session is being claimed.

    Args:
        connect: Connects to the target within the deadline, which passes early if nobody wants it any more.
        timeout: Seconds for the attempt.
    """

    def __init__(self, connect: Callable[[Deadline], Connected], timeout: float) -> None:
        self._connect = connect
        self._deadline = AbortableDeadline(timeout)
        self._lock = threading.Lock()
        self._abandoned = False
        self._connected: Connected | None = None
        self._thread = threading.Thread(target=self._run, name="emissary-connector", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        connected = outcome_of(lambda: self._connect(self._deadline))
        with self._lock:
            self._connected = connected
            if self._abandoned and connected.sock is not None:
                connected.sock.close()

    def result(self, timeout: float, given_up: Callable[[], bool]) -> Connected | None:
        """The outcome; ``TARGET_TIMED_OUT`` if there is none in time, ``None`` if it is not waited for.

        Args:
            timeout: Seconds to wait.
            given_up: Asked every quarter of a second whether nobody wants the connection any more; then
                :meth:`abandon` has to follow.
        """
        patience = Deadline(timeout)
        while True:
            self._thread.join(patience.cap(LOOK))
            with self._lock:
                if self._connected is not None:
                    return self._connected
                if patience.passed():
                    self._abandon()
                    return Connected(Code.TARGET_TIMED_OUT)
            if given_up():
                with self._lock:
                    self._abandon()
                return None

    def abandon(self, timeout: float) -> None:
        """The connection is not wanted: ends the attempt, waits for that, and closes what came of it.

        Nothing may be left to a frozen environment: a connection under way would be closed at the thaw.
        """
        with self._lock:
            self._abandon()
        self._thread.join(timeout)

    def _abandon(self) -> None:
        assert self._lock.locked()
        self._abandoned = True
        self._deadline.abort()
        if self._connected is not None and self._connected.sock is not None:
            self._connected.sock.close()
