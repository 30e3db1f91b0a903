"""Opens a session: upgrade, SOCKS5 exchange, the relay's first message (docs/protocol.md section 3).

The upgrade shows the opening, so that the relay is launched before the 101 is here. The opening is sent all
the same: an older bridge has ignored what was shown, and any bridge refuses by answering that message alone.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Callable, Iterator
from typing import Final

from emissary_lib.client.endpoint import Endpoint
from emissary_lib.client.progress import Progress
from emissary_lib.exceptions import (
    AnswerLostError,
    AuthenticationError,
    ClockSkewError,
    DialError,
    EmissaryError,
    GatewayRefusedError,
    LinkClosedError,
    SessionLimitError,
    dial_error,
)
from emissary_lib.protocol.auth.httpdate import http_date
from emissary_lib.protocol.auth.keys import Key
from emissary_lib.protocol.auth.macs import parse_http_date, session_id, sign_connect, sign_opening
from emissary_lib.protocol.codes import MEANINGS, Code
from emissary_lib.protocol.constants import CLOCK_SKEW, MAX_SHOWN_BYTES
from emissary_lib.protocol.errors import RemoteProtocolError
from emissary_lib.protocol.opening.banner import Banner
from emissary_lib.protocol.opening.exchange import OpeningReader, opening_bytes
from emissary_lib.protocol.record import Record, hidden
from emissary_lib.protocol.role import Role
from emissary_lib.protocol.session.events import Aborted, GoingAway, RelayOpened
from emissary_lib.protocol.session.session import Session, SessionConfig
from emissary_lib.protocol.session.states import State
from emissary_lib.protocol.targets.allow_list import Target
from emissary_lib.protocol.wire.payloads import Opened
from emissary_lib.transport.backoff import back_off, may_pass, wait
from emissary_lib.transport.base import MessageTransport
from emissary_lib.transport.deadline import Deadline
from emissary_lib.transport.watch import Watch
from emissary_lib.transport.websocket import WebSocketTransport, connect

#: Ends of a session that was still opening, after which a new session may do better.
_START_OVER: Final = frozenset(
    {Code.DIALER_GONE, Code.RELAY_GONE, Code.UNKNOWN_SESSION, Code.OPENING_EXPIRED}
)

#: How long a failed dial waits for the bridge to have taken note, in seconds, if it has that long.
GIVE_UP_WAIT: Final = 1.0

#: How long a dial that finds as many sessions as may be tries again, in seconds: the place of one that was
#: just closed is about to be free. Others are taken for minutes.
LIMIT_WAIT: Final = 3.0

#: Longest wait for a message while a place in the shared budget is missing, in seconds.
_BUDGET_WAIT: Final = 0.05


class Request(Record):
    """What a dialer asks the bridge for.

    Attributes:
        target: Whom the SOCKS5 CONNECT names.
        behind: Gives what follows it in the same stream, for each attempt anew: nothing of a user's (3.2-5).
    """

    target: Target
    behind: Callable[[], bytes] = bytes


class Opening(Record):
    """What a dialer asks for at one attempt: what it shows with its upgrade, and sends behind that.

    Attributes:
        target: Whom the SOCKS5 CONNECT names.
        behind: What follows it in the same stream.
        window: The dialer's window, in bytes.
    """

    target: Target
    behind: bytes = hidden()
    window: int

    def stream(self, key: Key, date: str, nonce: bytes) -> bytes:
        """The beginning of the dialer's stream, with the upgrade's key, date and nonce."""
        return opening_bytes(key=key, date=date, nonce=nonce, target=self.target) + self.behind


class OpenedSession(Record):
    """A session whose SOCKS5 handshake is over: from here on the bytes are the user's.

    Attributes:
        id: The session id.
        session: Its state on this side.
        transport: Its WebSocket.
        parameters: What the relay said of its limits, as of ``opened_at`` (seconds since 1970 UTC).
        announced: That its end is near, if it has said so already.
    """

    id: str
    session: Session
    transport: WebSocketTransport
    parameters: Opened
    opened_at: float
    announced: GoingAway | None = None


def open_session(
    endpoint: Endpoint,
    key: Key,
    target: Target,
    config: SessionConfig,
    deadline: Deadline,
    progress: Progress | None = None,
) -> OpenedSession:
    """Dial ``target``.

    Args:
        endpoint: The gateway.
        key: To sign with.
        target: What to reach.
        config: Of the session.
        deadline: For all of it.
        progress: Says what is waited for; ``None`` for one on the host's clock.

    Blocking: until the relay is connected to the target, at most until the deadline.

    Raises:
        AuthenticationError: The key is unknown or wrong; :class:`ClockSkewError` if the clock is.
        GatewayUnreachableError: No answer from the gateway; AnswerLostError is retried first.
        GatewayRefusedError: An answer of neither kind; throttling and server errors are retried first.
        DialError: The target was not reached; its subclasses say why. SessionLimitError is retried first.
        DialTimeoutError: The deadline passed.
        RemoteProtocolError: The server does not speak the protocol.
        OriginalServerError: It is the original Emissary's; the caller has to go on with it, or to close it.
    """
    progress = progress or Progress(target)
    try:
        opened = open_request(endpoint, key, Request(target), config, deadline, progress)
    except BaseException as exc:
        progress.end(exc)
        raise
    progress.end()
    return opened


def open_request(
    endpoint: Endpoint,
    key: Key,
    request: Request,
    config: SessionConfig,
    deadline: Deadline,
    progress: Progress,
    *,
    limit_wait: float | None = None,
) -> OpenedSession:
    """As :func:`open_session`, for a dial that is not over with that: ``progress`` is not told of an end.

    Args:
        endpoint: As there.
        key: As there.
        request: Whom to ask for.
        config: As there.
        deadline: As there.
        progress: As there; its target is the one that errors name.
        limit_wait: Seconds for which to try again when there are as many sessions as may be; ``None`` for
            ``LIMIT_WAIT``.
    """
    waits, pause = back_off(), functools.partial(progress.pause, deadline=deadline)
    full: SessionLimitError | None = None
    patience = Deadline(None)
    while True:
        try:
            return _open_once(endpoint, key, request, config, deadline, progress)
        except SessionLimitError as exc:
            if full is None:
                patience = Deadline(LIMIT_WAIT if limit_wait is None else limit_wait)
            full, left = exc, patience.remaining()
            if not left:
                raise
            wait(min(next(waits), left), deadline, exc, sleep=pause)
        except (LinkClosedError, DialError) as exc:
            # Cut off before a relay had reached the target: there is nothing to lose, so start over.
            if isinstance(exc, DialError) and exc.code not in _START_OVER:
                raise
            wait(next(waits), deadline, exc, sleep=pause)
        except TimeoutError as exc:
            if full is not None and not patience.passed():
                raise full from None  # it says more than that there was no time for yet another attempt
            raise progress.timeout_error(deadline) from exc


def _open_once(
    endpoint: Endpoint,
    key: Key,
    request: Request,
    config: SessionConfig,
    deadline: Deadline,
    progress: Progress,
) -> OpenedSession:
    opening = Opening(request.target, request.behind(), config.streams.capacity)
    upgrade = connect_with_retry(endpoint, key, deadline, progress, opening, original=True)
    nonce, transport = upgrade.nonce, upgrade.transport
    try:
        session = Session(Role.DIALER, config, now=time.monotonic())
        stream = opening.stream(key, upgrade.date, nonce)
        session.send_data(stream[:MAX_SHOWN_BYTES])
        session.show()
        session.send_data(stream[MAX_SHOWN_BYTES:])
        reader = OpeningReader(key, upgrade.date, nonce, endpoint.host)
        handshake = Handshake(progress.target, session, transport, reader, progress)
        progress.enter("relay")
        progress.follow(session.counters)
        parameters = handshake.run(deadline)
    except BaseException as exc:
        exc.add_note(f"session {session_id(nonce)}")  # as it stands in the logs of bridge and relay
        transport.close()
        transport.release()
        raise
    return OpenedSession(
        session_id(nonce), session, transport, parameters, time.time(), announced=handshake.announced
    )


class Upgrade(Record):
    """A WebSocket that the bridge has let in; what it was asked with belongs to the session.

    Attributes:
        nonce: 32 bytes, used up; secret.
        date: The date that was signed.
        transport: The WebSocket; the owner closes and releases it.
    """

    nonce: bytes = hidden()
    date: str
    transport: WebSocketTransport


def connect_once(
    endpoint: Endpoint,
    key: Key,
    deadline: Deadline,
    watch: Watch | None = None,
    opening: Opening | None = None,
    *,
    original: bool = False,
) -> Upgrade:
    """Ask to be let in, once, with a fresh nonce (docs/protocol.md sections 3.1 and 3.7).

    Args:
        endpoint: The gateway.
        key: To sign with.
        deadline: For the answer.
        watch: Waits with it; ``None`` for nobody.
        opening: What to show, so that a relay is launched at once; it has to be sent all the same.
        original: Whether the server may be the original Emissary's.

    Raises:
        GatewayUnreachableError: No answer; its subclass AnswerLostError: we may have been let in, but this
            nonce is burnt. OriginalServerError, with ``original``: it is the original Emissary's server.
        GatewayRefusedError: An answer other than 101; :func:`error_from_status` says what it means.
        TimeoutError: The deadline passed.
    """
    nonce, date = os.urandom(32), http_date(time.time())
    headers = sign_connect(key, date=date, nonce=nonce, host=endpoint.host).to_headers()
    if opening is not None:
        shown = opening.stream(key, date, nonce)[:MAX_SHOWN_BYTES]
        headers |= sign_opening(
            key, date=date, nonce=nonce, host=endpoint.host, window=opening.window, stream=shown
        ).to_headers()
    transport = connect(
        endpoint.url,
        headers=headers,
        deadline=deadline,
        ssl_context=endpoint.tls(),
        watch=watch,
        original=original,
    )
    return Upgrade(nonce, date, transport)


def connect_with_retry(
    endpoint: Endpoint,
    key: Key,
    deadline: Deadline,
    watch: Watch | None = None,
    opening: Opening | None = None,
    *,
    original: bool = False,
) -> Upgrade:
    """Ask to be let in, again and again while the gateway is throttled or broken.

    Takes what :func:`connect_once` does.

    Raises:
        EmissaryError: As :func:`connect_once`, of the last attempt that was answered or cut off; a refusal
            at once, as :func:`error_from_status` has it.
        TimeoutError: The deadline passed during the first attempt.
    """
    watch = watch or Watch()
    waits, pause = back_off(), functools.partial(watch.pause, deadline=deadline)
    failure: EmissaryError | None = None
    while True:
        watch.begin_attempt()
        try:
            return connect_once(endpoint, key, deadline, watch, opening, original=original)
        except TimeoutError:
            if failure is None:
                raise
            raise failure from None  # it says more than that there was no time for yet another attempt
        except AnswerLostError as exc:
            failure = exc
        except GatewayRefusedError as exc:
            if not may_pass(exc.http_status):
                raise error_from_status(exc, key, endpoint.host) from exc
            failure = exc
        wait(next(waits), deadline, failure, sleep=pause)


def error_from_status(refused: GatewayRefusedError, key: Key, host: str) -> EmissaryError:
    """What an answer of the upgrade other than 101 means; ``refused`` itself where it says all there is."""
    if refused.http_status not in (401, 403, 421):
        return refused
    if refused.http_status == 401:
        return AuthenticationError(
            f"{refused}: no usable signature arrived there; see whether a proxy on the way drops the "
            "X-Emissary-* headers, and whether dialer and bridge are of the same release"
        )
    if refused.http_status == 421:
        return AuthenticationError(
            f"{refused}: key id {key.key_id} is right, but the API's host is another than {host}, which was "
            "signed; take WebSocketUrl from the stack's outputs, or see whether a reverse proxy on the way "
            "rewrites Host, as none may"
        )
    skew = clock_skew(refused.date)
    if abs(skew) > CLOCK_SKEW:
        return ClockSkewError(skew)
    return AuthenticationError(
        f"{refused}: key id {key.key_id} is unknown there or its secret is another one, or the URL's host "
        "or stage is wrong; compare EMISSARY_AUTH_KEYS and the URL with the deployed stack"
    )


def clock_skew(date: str | None) -> float:
    """Seconds by which our clock is ahead of the server's; 0 if it did not tell the time."""
    if date is None:
        return 0.0
    try:
        return time.time() - parse_http_date(date)
    except AuthenticationError:
        return 0.0


class Handshake:
    """The SOCKS5 handshake over a fresh session, in the caller's thread.

    Args:
        target: What is dialled, for the text of errors.
        session: Its state; the bytes to send are written to it by the caller.
        transport: Its WebSocket.
        reader: Reads what the server says.
        watch: Waits with it; ``None`` for nobody.
    """

    def __init__(
        self,
        target: Target,
        session: Session,
        transport: MessageTransport,
        reader: OpeningReader,
        watch: Watch | None = None,
    ) -> None:
        self.target = target
        self._session = session
        self._transport = transport
        self._reader = reader
        self._watch = watch or Watch()
        self._parameters: Opened | None = None
        self.announced: GoingAway | None = None  # the user has nobody yet who could hear of it

    @property
    def parameters(self) -> Opened | None:
        """What the relay said of itself; ``None`` while no relay has spoken."""
        return self._parameters

    def prove(self, deadline: Deadline) -> Banner:
        """Exchange messages until the server has proved itself; gives its banner. Raises as :meth:`run`."""
        with self._telling_the_bridge(deadline):
            while (banner := self._reader.banner) is None:
                self.turn(deadline)
            return banner

    def run(self, deadline: Deadline) -> Opened:
        """Exchange messages until the relay reports success; gives its parameters.

        Raises:
            EmissaryError: What :func:`open_session` raises of a handshake; LinkClosedError too.
            TimeoutError: The deadline passed.
        """
        with self._telling_the_bridge(deadline):
            while not self._reader.done:
                self.turn(deadline)
            return self._outcome()

    @contextlib.contextmanager
    def _telling_the_bridge(self, deadline: Deadline) -> Iterator[None]:
        try:
            yield
        except EmissaryError as exc:  # first: TargetTimedOutError is a TimeoutError too
            self.give_up(getattr(exc, "code", Code.PROTOCOL_ERROR), type(exc).__name__, deadline)
            raise
        except TimeoutError:
            self.give_up(Code.DIALER_RESET, f"the dial {deadline.passed_for}", deadline)
            raise

    def turn(self, deadline: Deadline) -> None:
        """Send what is due and wait for one message; also after the handshake, for bytes of the target's.

        Raises:
            LinkClosedError: The WebSocket ended.
            EmissaryError: The session was cut off.
            TimeoutError: The deadline passed.
        """
        session, now = self._session, time.monotonic()
        session.handle_timeout(now)
        self._flush(now, deadline)
        if deadline.passed():
            raise TimeoutError
        due = session.next_timeout()
        wait = deadline.cap(None if due is None else max(0.0, due - now))
        if session.waits_to_send:
            wait = _BUDGET_WAIT if wait is None else min(wait, _BUDGET_WAIT)
        try:
            session.receive_message(self._transport.recv(self._watch.look(wait)), time.monotonic())
        except TimeoutError:
            return
        while event := session.next_event():
            if isinstance(event, RelayOpened):
                self._parameters = event.parameters
            elif isinstance(event, GoingAway):
                self.announced = event
            elif isinstance(event, Aborted):
                raise abort_error(self.target, event.code, event.reason)
        self._read()

    def _read(self) -> None:
        now = time.monotonic()
        while not self._reader.done and (view := self._session.peek()):
            data = bytes(view)
            rest = self._reader.receive(data)
            self._session.consume(len(data) - len(rest), now)

    def _outcome(self) -> Opened:
        code = self._reader.code
        if self._parameters is not None and self._parameters.code is not Code.OK:
            code = self._parameters.code  # says more than a SOCKS5 reply can
        if code is not Code.OK:
            raise dial_error(self.target, code)
        if self._parameters is None:
            raise RemoteProtocolError("the bridge reports success, but no relay has opened the session")
        self._session.finish_opening()
        return self._parameters

    def give_up(self, code: Code, reason: str, deadline: Deadline) -> None:
        """Tell the bridge why, so that its record is right; unless it is the one who told us."""
        if not self._session.alive:
            return
        now = time.monotonic()
        self._session.abort(code, reason, now)
        # Else our $disconnect may overtake END, and the record says DIALER_GONE.
        patience = deadline.within(GIVE_UP_WAIT)
        try:
            self._flush(now, patience)
            while self._session.state is not State.ENDED and not patience.passed():
                self._session.receive_message(self._transport.recv(patience.remaining()), time.monotonic())
        except (LinkClosedError, TimeoutError):
            return

    def _flush(self, now: float, deadline: Deadline) -> None:
        for message in self._session.messages_to_send(now):
            self._transport.send(message.data, deadline.remaining())


def abort_error(target: Target, code: Code, reason: str) -> EmissaryError:
    """The error for a dial whose session was cut off before the target was reached."""
    if code <= Code.FLOW_CONTROL_ERROR or code >= Code.TARGET_NOT_ALLOWED:
        return dial_error(target, code, reason)
    text = (
        f"cannot reach {target}: {reason or MEANINGS[code]} ({code.name}); see the logs of bridge and relay"
    )
    return DialError(text, target=target, code=code)
