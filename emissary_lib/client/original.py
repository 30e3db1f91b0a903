"""One dial over the original Emissary's transport: its opening, its socket, its end.

Source: docs/protocol.md section 12.
"""

from __future__ import annotations

import functools
import logging
import math
import os
import socket
import time
from collections.abc import Callable
from typing import Final

from emissary_lib.client.dial import Opener, run_and_tell, worth_telling
from emissary_lib.client.endpoint import Endpoint
from emissary_lib.client.handshake import clock_skew, connect_with_retry
from emissary_lib.client.progress import Progress
from emissary_lib.client.socket import SessionInfo
from emissary_lib.exceptions import (
    AuthenticationError,
    ClockSkewError,
    DialError,
    EmissaryError,
    GatewayUnreachableError,
    LinkClosedError,
    NameNotFoundError,
    TargetNotAllowedError,
    TargetRefusedError,
    TargetTimedOutError,
    TargetUnreachableError,
    TunnelResetError,
    local_resource_error,
    reset_error,
)
from emissary_lib.protocol.auth.httpdate import http_date
from emissary_lib.protocol.auth.keys import Key
from emissary_lib.protocol.auth.macs import session_id
from emissary_lib.protocol.codes import MEANINGS, Code
from emissary_lib.protocol.constants import CLOCK_SKEW
from emissary_lib.protocol.errors import RemoteProtocolError
from emissary_lib.protocol.opening.banner import Banner
from emissary_lib.protocol.original.frames import (
    Close,
    Event,
    FrameReader,
    Payload,
    Ping,
    encode_close,
    encode_frame,
)
from emissary_lib.protocol.original.opening import OriginalOpening
from emissary_lib.protocol.original.stream import (
    GOING_AWAY,
    MAX_MESSAGE,
    PING_INTERVAL,
    End,
    OriginalStream,
    Times,
)
from emissary_lib.protocol.record import Record
from emissary_lib.protocol.stream.counters import Counters
from emissary_lib.protocol.targets.allow_list import Target
from emissary_lib.protocol.wire.websocket import Opcode
from emissary_lib.transport.backoff import back_off, wait
from emissary_lib.transport.bytestream import ByteStream
from emissary_lib.transport.deadline import Deadline
from emissary_lib.transport.websocket import OriginalServerError
from emissary_lib.tunnel.loopback import reset
from emissary_lib.tunnel.original import HALF_CLOSED, OriginalTunnel

logger = logging.getLogger("emissary_lib.tunnel")

#: What the server's replies mean, and what to do about them. Its log says more than they do.
_DIAL_ERRORS: Final[dict[Code, tuple[type[DialError], str, str]]] = {
    Code.TARGET_NOT_ALLOWED: (
        TargetNotAllowedError,
        "it is not on the server's allow-list",
        "add it to EMISSARY_ALLOWED_PROXY_TARGETS there, by the very name or address that is dialled",
    ),
    Code.NAME_NOT_FOUND: (NameNotFoundError, "its name does not resolve there", "check its spelling"),
    Code.TARGET_REFUSED: (
        TargetRefusedError,
        "the host refused the connection",
        "check that the service runs and listens on that port, not on loopback alone",
    ),
    Code.TARGET_UNREACHABLE: (
        TargetUnreachableError,
        "the server does not reach it, or its name does not resolve there",
        "check its spelling, EMISSARY_DNS_SERVERS, routes and firewalls; the server's log says which it is",
    ),
    Code.TARGET_TIMED_OUT: (TargetTimedOutError, "it did not answer the server", "check its firewall"),
}


def original_dial_error(target: Target, code: Code) -> EmissaryError:
    """The error for a dial that the original's server refused with ``code``."""
    if code is Code.AUTHENTICATION_FAILED:
        return AuthenticationError(
            f"dialling {target}: the server did not accept the key; compare EMISSARY_AUTH_KEYS on both "
            "sides, and both clocks"
        )
    kind, why, hint = _DIAL_ERRORS.get(code, (DialError, MEANINGS[code], "see the server's log"))
    return kind(f"cannot reach {target}: {why}; {hint}", target=target, code=code, reason=why, hint=hint)


class NotOriginalError(EmissaryError):
    """The server accepts ``emissary.v2`` by now; never seen by a caller."""


class OpenedOriginal(Record):
    """A connection whose opening is over: from here on the bytes are the user's.

    Attributes:
        id: The SHA-256 of the server's nonce: it has no other name, and nobody else knows this one.
        link: The server's connection.
        stream: Its state.
        counters: Of the stream; live.
    """

    id: str
    link: ByteStream
    stream: OriginalStream
    counters: Counters


class OriginalDial:
    """One connection over the original's transport; used as :class:`emissary_lib.client.dial.Dial`.

    Args:
        target: What to reach.
        deadline: For the opening alone.
        opener: How the dialer opens sessions.
        progress: Says what is waited for; is told of the end.
        found: The server's connection, if it was met just now; ``None`` to connect.

    Attributes:
        info: What is known of the connection.

    Blocking: constructing it, until the server is connected to the target, at most until the deadline.

    Raises:
        NotOriginalError: The server speaks ``emissary.v2``.
        EmissaryError: As :func:`emissary_lib.client.handshake.open_session`.
    """

    def __init__(
        self,
        target: Target,
        deadline: Deadline,
        opener: Opener,
        progress: Progress,
        found: OriginalServerError | None = None,
    ) -> None:
        self._target = target
        self._tunnel: OriginalTunnel | None = None
        try:
            self._opened = _open_with_retry(target, deadline, opener, progress, found)
        except NotOriginalError:
            raise
        except BaseException as exc:
            progress.end(exc)
            raise
        progress.end()
        stream = self._opened.stream
        self.info = SessionInfo(
            self._opened.id,
            target,
            math.inf,
            self._opened.counters,
            lambda: (stream.sent, stream.received),
        )

    def attach(self, sock: socket.socket) -> OriginalTunnel:
        """Tie the connection to ``sock``, which is owned from here on; call :meth:`run` next.

        Returns:
            What carries the bytes.

        Raises:
            LocalResourceError: No descriptor is left; the connection was ended, and the socket reset.
        """
        link = self._opened.link
        try:
            self._tunnel = OriginalTunnel(self._opened.stream, link, sock, on_end=self._on_end)
        except BaseException as exc:
            reset(sock)
            _close(link)
            if isinstance(exc, OSError):
                raise local_resource_error(exc) from exc
            raise
        return self._tunnel

    def run(self) -> TunnelResetError | None:
        """Drive the connection until its end.

        Returns:
            Why it was cut off, if that is worth telling.

        Blocking: for the life of the connection.
        """
        assert self._tunnel, "attach comes first"
        self._tunnel.run()
        lost = self._tunnel.undelivered_bytes
        if self._tunnel.program_ended and not lost:
            return None  # its program has closed it, as far as anybody can tell; else it has been reset
        return worth_telling(self.info.error, lost, untaken=self._tunnel.untaken)

    @property
    def nobody_is_left(self) -> bool:
        """Whether an error may find no reader at the socket: the program had ended its stream."""
        return self._tunnel is not None and self._tunnel.program_ended

    def start(self, on_end: Callable[[TunnelResetError | None], None]) -> None:
        """As :meth:`run`, in a thread of its own, and tell ``on_end`` what that would return.

        Raises:
            LocalResourceError: No thread is left; the connection was ended, and the socket reset.
        """
        assert self._tunnel, "attach comes first"
        self._tunnel.run_in_thread(lambda: run_and_tell(self.run, on_end))

    def _on_end(self, end: End) -> None:
        if end is HALF_CLOSED:
            self.info.error = TunnelResetError(
                f"the tunnel to {self._target} ended: {end.reason}", code=end.code
            )
        elif end.code is not Code.OK:
            self.info.error = reset_error(self._target, end.code, end.reason)


def _open_with_retry(
    target: Target,
    deadline: Deadline,
    opener: Opener,
    progress: Progress,
    found: OriginalServerError | None,
) -> OpenedOriginal:
    waits, pause = back_off(), functools.partial(progress.pause, deadline=deadline)
    while True:
        try:
            if found is None:
                found = _meet(opener.endpoint, opener.key, deadline, progress)
            server, found = found, None
            return _open(server, opener, target, deadline, progress)
        except LinkClosedError as exc:  # cut off before the target was reached: there is nothing to lose
            wait(next(waits), deadline, exc, sleep=pause)
        except TimeoutError as exc:
            if isinstance(exc, DialError):
                raise
            raise progress.timeout_error(deadline) from exc


def _meet(
    endpoint: Endpoint, key: Key, deadline: Deadline, progress: Progress | None = None
) -> OriginalServerError:
    """Connect to the original's server, and go no further.

    Raises:
        NotOriginalError: It is none, or no longer.
    """
    try:
        upgrade = connect_with_retry(endpoint, key, deadline, progress, original=True)
    except OriginalServerError as exc:
        return exc
    upgrade.transport.close()
    upgrade.transport.release()
    raise NotOriginalError(f"the server at {endpoint.url} speaks emissary.v2")


def _open(
    server: OriginalServerError, opener: Opener, target: Target, deadline: Deadline, progress: Progress
) -> OpenedOriginal:
    link = server.stream
    try:
        link.wait_for_slow_peer()
        progress.enter("banner")
        reader, counters = FrameReader(), Counters()
        opening = OriginalOpening(opener.key, http_date(time.time()), target)
        try:
            early = _converse(link, reader, opening, deadline, progress, opener.endpoint.url)
        except LinkClosedError as exc:
            if opening.banner is None and not opener.learned.original:
                raise GatewayUnreachableError(
                    f"the server at {opener.endpoint.url} does not speak emissary.v2, and ended the "
                    f"connection before the banner of the original Emissary: {exc}; check the URL"
                ) from exc
            raise
        opener.learned.note_original(opener.endpoint.url)
        if opening.refused:
            if opening.code is Code.AUTHENTICATION_FAILED:
                raise _key_error(target, server.date)
            raise original_dial_error(target, opening.code)
        assert opening.banner
        times = Times(min(PING_INTERVAL, opener.keepalive.interval), opener.keepalive.deadline)
        stream = OriginalStream(
            reader,
            early,
            counters,
            now=time.monotonic(),
            draw_mask=_draw_mask,
            times=times,
        )
    except BaseException:
        _close(link)
        raise
    return OpenedOriginal(session_id(opening.banner.nonce), link, stream, counters)


def check_key(endpoint: Endpoint, key: Key, deadline: Deadline) -> Banner:
    """Ask the original's server whether it accepts the key; no target is named, and nothing stays open.

    Returns:
        What the server says of itself.

    Raises:
        AuthenticationError: It does not; ClockSkewError if the clock is the reason, as far as it tells.
        TransportError: It was not reached, refused, cut the connection, or is not the original's.
        RemoteProtocolError: It is not the original's.
        TimeoutError: No answer before the deadline.

    Blocking: at most until the deadline. Any thread.
    """
    try:
        server = _meet(endpoint, key, deadline)
    except NotOriginalError as exc:
        raise RemoteProtocolError(str(exc)) from exc
    gateway = Target(*endpoint.address)  # nothing farther away is asked for
    question = OriginalOpening(key, http_date(time.time()), None)
    try:
        _converse(server.stream, FrameReader(), question, deadline, Progress(gateway), endpoint.url)
    finally:
        _close(server.stream)
    if question.refused:
        raise _key_error(gateway, server.date)
    assert question.banner
    return question.banner


def _key_error(target: Target, date: str | None) -> EmissaryError:
    skew = clock_skew(date)
    if abs(skew) > CLOCK_SKEW:
        return ClockSkewError(skew)
    return original_dial_error(target, Code.AUTHENTICATION_FAILED)


def _converse(
    link: ByteStream,
    reader: FrameReader,
    opening: OriginalOpening,
    deadline: Deadline,
    progress: Progress,
    url: str,
) -> list[Event]:
    """Exchange messages until the opening is over, well or not.

    Returns:
        What has come behind it already.

    Raises:
        LinkClosedError: The server has closed, or the connection broke.
        RemoteProtocolError: It is none of the original's.
        TimeoutError: The deadline passed.
    """
    early: list[Event] = []
    while not opening.done:
        if deadline.passed():
            raise TimeoutError
        try:
            data = link.read(MAX_MESSAGE, Deadline(deadline.cap(progress.look(None))))
        except TimeoutError:
            continue
        except OSError as exc:
            raise LinkClosedError(f"the WebSocket to {url} broke: {exc}") from exc
        if not data:
            raise LinkClosedError(f"the server at {url} ended the connection without a Close frame")
        answers = b""
        for event in reader.receive(data):
            if opening.accepted:
                early.append(event)
            elif isinstance(event, Payload):
                opening.receive(event)
                if opening.rest:
                    early.append(Payload(opening.rest, event.ends))
            elif isinstance(event, Ping):
                answers = encode_frame(Opcode.PONG, event.data, _draw_mask())
            elif isinstance(event, Close) and not opening.refused:
                raise LinkClosedError(
                    f"the server at {url} closed the WebSocket: {event.code} ({event.reason or 'no reason'})",
                    close_code=event.code,
                )
        if out := opening.data_to_send():
            progress.enter("server")
            answers += encode_frame(Opcode.BINARY, out, _draw_mask())
        if answers and not opening.refused:
            try:
                link.write(answers, deadline)
            except TimeoutError:
                raise
            except OSError as exc:
                raise LinkClosedError(f"the WebSocket to {url} broke: {exc}") from exc
    return early


def _close(link: ByteStream) -> None:
    """End a connection that nobody drives."""
    try:
        link.write_now(memoryview(encode_close(GOING_AWAY, _draw_mask())))
    except OSError:
        pass  # it is over
    link.shutdown()
    link.close()


def _draw_mask() -> bytes:
    return os.urandom(4)
