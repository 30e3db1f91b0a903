"""The relay's side of a shared session: answers requests for connections (docs/protocol.md section 11)."""

from __future__ import annotations

from h2 import events as h2_events
from h2.errors import ErrorCodes
from h2.exceptions import StreamClosedError

from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.errors import FrameError, LocalProtocolError, RemoteProtocolError
from emissary_lib.protocol.mux.answers import NO_MORE_STREAMS, answer_headers
from emissary_lib.protocol.mux.connection import Connection
from emissary_lib.protocol.mux.events import Requested
from emissary_lib.protocol.mux.limits import RAPID_RESETS, SHARED_TARGET, Allowance, MuxLimits
from emissary_lib.protocol.mux.multiplexer import Multiplexer
from emissary_lib.protocol.mux.states import ConnectionState, ConnectionStep
from emissary_lib.protocol.targets.allow_list import Target, TargetError


class RelayMultiplexer(Multiplexer):
    """Serves one dialer's connections; see :class:`Multiplexer`.

    A request that the dialer gives up before it was answered is told as :class:`CutOff`.

    Args:
        limits: How much this side holds; ``limits.connections`` is what the dialer may open at once.
        now: Seconds on a monotonic clock.

    Attributes:
        opened: Connections that were accepted so far, for the record.
        refused: Requests that were answered otherwise, declined ones too.

    Thread safety: none; the owner of the session serialises every call. Nothing blocks.
    """

    def __init__(self, limits: MuxLimits, now: float) -> None:
        super().__init__(limits, client=False, now=now)
        self.opened = 0
        self.refused = 0
        self._draining = False
        self._rapid = Allowance(*RAPID_RESETS, now)

    def accept(self, stream: int) -> None:
        """The target is connected to: bytes may flow. Nothing happens if the dialer has given up meanwhile.

        Raises:
            LocalProtocolError: The request was answered already.
        """
        connection = self._requested(stream)
        if connection is not None:
            self._http2.send_headers(stream, answer_headers(Code.OK))
            self._gate.sent()
            self._collect()
            connection.move(ConnectionStep.ACCEPTED)
            self.opened += 1

    def refuse(self, stream: int, code: Code) -> None:
        """The target was not reached. Nothing happens if the dialer has given up meanwhile.

        Args:
            stream: Which request.
            code: Why; one that happens while dialling (docs/protocol.md section 8).

        Raises:
            LocalProtocolError: The request was answered already, or ``code`` is no such code.
        """
        headers = answer_headers(code)
        if code is Code.OK:
            raise LocalProtocolError("a request is not refused for OK")
        connection = self._requested(stream)
        if connection is not None:
            connection.move(ConnectionStep.REFUSED)
            self._remove(connection)
            self._answer_refusal(stream, headers)

    def decline(self, stream: int) -> None:
        """Say that nothing was done for this request: the dialer may make it elsewhere at once.

        For want of a place to connect from (docs/protocol.md 11.3-6). Nothing happens if the dialer has given
        up meanwhile.

        Raises:
            LocalProtocolError: The request was answered already.
        """
        connection = self._requested(stream)
        if connection is not None:
            connection.move(ConnectionStep.REFUSED)
            self._remove(connection)
            self._answer_decline(stream)

    def drain(self) -> None:
        """Take no more connections (docs/protocol.md 11.2-9); those that are open go on. Idempotent."""
        if not self._draining and not self._over:
            self._draining = True
            # Past h2, which would end the session for requests that were sent before (11.2-9).
            self._out += NO_MORE_STREAMS

    def end_waits(self, stream: int) -> bool:
        """Whether all of the dialer's stream has come, and :meth:`release_end` is waited for.

        A dialer that is about to exit waits, too, for as long as bytes move: :meth:`report` each time that
        the user has taken some, but at most every 500 ms (docs/protocol.md 11.4-5).
        """
        connection = self._connections.get(stream)
        if connection is None or connection.loss is not None:
            return False
        return connection.end_received and not connection.released

    def release_end(self, stream: int) -> None:
        """The target has all of the dialer's stream beyond doubt (docs/protocol.md 11.4-5). Idempotent.

        Nothing happens before :meth:`end_waits`, nor before the user has taken all bytes here.
        """
        if self.end_waits(stream) and self.receive_ended(stream):
            connection = self._connections[stream]
            connection.released = True
            self._send_position(connection, Code.OK)
            self._close_if_over(connection)

    def _requested(self, stream: int) -> Connection | None:
        connection = self._connections.get(stream)
        if connection is not None and connection.state is not ConnectionState.REQUESTED:
            raise LocalProtocolError(f"the request {stream} was answered before")
        return connection

    def _answer_decline(self, stream: int) -> None:
        self.refused += 1
        self._reset_http2(stream, ErrorCodes.REFUSED_STREAM)

    def _answer_refusal(self, stream: int, headers: list[tuple[str, str]]) -> None:
        self.refused += 1
        # What came in one piece with the request may have reset the stream already.
        try:
            self._http2.send_headers(stream, headers, end_stream=True)
        except StreamClosedError:
            pass
        self._gate.sent()
        self._collect()

    def _release_at_end(self, connection: Connection) -> None:
        """The driver does, by :meth:`release_end`: only the kernel knows what the target has."""

    def _waits_for_end(self, connection: Connection) -> bool:
        return not connection.released

    def _on_request(self, event: h2_events.RequestReceived) -> None:
        stream = event.stream_id
        fields = dict(event.headers)
        if fields[b":method"] != b"CONNECT" or b":authority" not in fields or b":protocol" in fields:
            raise FrameError("a request in the shared session that is no CONNECT")
        self._highest = stream
        if self._draining or len(self._connections) >= self._limits.connections:
            self._answer_decline(stream)
            return
        try:
            target = Target.parse(fields[b":authority"].decode("ascii"))
        except (TargetError, UnicodeDecodeError):
            target = SHARED_TARGET
        if target.host == SHARED_TARGET.host:
            # No rule can name what is no target, and the reserved name means no host.
            self._answer_refusal(stream, answer_headers(Code.TARGET_NOT_ALLOWED))
            return
        self._admit(stream, Connection(stream, target))
        self._events.append(Requested(stream, target))

    def _on_peer_reset(self, connection: Connection, error: int) -> None:
        if connection.state is ConnectionState.REQUESTED and not self._rapid.spend(self._now):
            raise RemoteProtocolError("the dialer gives up more connections than it waits for (rapid reset)")
        super()._on_peer_reset(connection, error)

    _HANDLERS = Multiplexer._HANDLERS | {h2_events.RequestReceived: _on_request}
