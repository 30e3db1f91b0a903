"""The dialer's side of a shared session: asks for connections (docs/protocol.md section 11)."""

from __future__ import annotations

from h2 import events as h2_events
from h2.errors import ErrorCodes
from h2.settings import SettingCodes

from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.errors import FrameError, LocalProtocolError
from emissary_lib.protocol.mux.answers import read_answer
from emissary_lib.protocol.mux.connection import Connection
from emissary_lib.protocol.mux.events import Declined, Draining, Opened, Refused
from emissary_lib.protocol.mux.limits import BUSY_WAITING, GIVE_UPS, MAX_CONNECTIONS, Allowance, MuxLimits
from emissary_lib.protocol.mux.multiplexer import Multiplexer
from emissary_lib.protocol.mux.states import ConnectionState, ConnectionStep
from emissary_lib.protocol.targets.allow_list import Target


class DialerMultiplexer(Multiplexer):
    """Carries connections to many targets over one relay; see :class:`Multiplexer`.

    What begins the HTTP/2 connection, and the requests that were made at once, are in the first
    :meth:`data_to_send`: they may go into the session's first message, behind its SOCKS5 bytes.

    Args:
        limits: How much this side holds.
        now: Seconds on a monotonic clock.

    Thread safety: none; the owner of the session serialises every call. Nothing blocks.
    """

    def __init__(self, limits: MuxLimits, now: float) -> None:
        super().__init__(limits, client=True, now=now)
        self._allowed = MAX_CONNECTIONS  # by the relay, until it says otherwise
        self._draining = False
        self._give_ups = Allowance(*GIVE_UPS, now)

    @property
    def draining(self) -> bool:
        """Whether the relay takes no more connections."""
        return self._draining

    @property
    def room(self) -> int:
        """How many more connections may be asked for now."""
        if self._draining or self._over or len(self._out) > BUSY_WAITING:
            return 0
        waiting = sum(each.state is ConnectionState.REQUESTED for each in self._connections.values())
        may_be_given_up = self._give_ups.left(self._now) - waiting
        return max(0, min(min(self._allowed, self._limits.connections) - self.connections, may_be_given_up))

    def open(self, target: Target) -> int:
        """Ask for a connection: Opened, Refused, Declined or CutOff follows.

        Returns:
            Its number.

        Raises:
            LocalProtocolError: There is no :attr:`room`.
        """
        if not self.room:
            raise LocalProtocolError("this relay has no room for another connection")
        stream = self._http2.get_next_available_stream_id()
        headers = [(":method", "CONNECT"), (":authority", str(target))]
        self._http2.send_headers(stream, headers)
        self._highest = stream
        self._gate.sent()
        self._collect()
        self._admit(stream, Connection(stream, target))
        return stream

    def end_acked(self, stream: int) -> bool:
        """Whether the target has all of our stream, its end too, beyond doubt (docs/protocol.md 11.4-5)."""
        connection = self._connections.get(stream)
        return connection is not None and not self._waits_for_end(connection)

    def progress(self, stream: int) -> int:
        """Grows while what the user has written moves, here or at the relay; 0 if the connection is over."""
        connection = self._connections.get(stream)
        return 0 if connection is None else connection.sent + connection.peer_taken

    def _send_reset(self, connection: Connection, code: Code) -> None:
        if connection.state is ConnectionState.REQUESTED:
            self._give_ups.spend(self._now)
        super()._send_reset(connection, code)

    def _release_at_end(self, connection: Connection) -> None:
        connection.released = not connection.received

    def _waits_for_end(self, connection: Connection) -> bool:
        return not connection.end_sent or connection.peer_taken < connection.sent

    def _on_answer(self, event: h2_events.ResponseReceived) -> None:
        connection = self._connections[event.stream_id]  # one that we gave up is closed for h2, too
        code = read_answer(event.headers)
        if code is Code.OK:
            connection.move(ConnectionStep.ACCEPTED)
            self._events.append(Opened(connection.stream))
            return
        if event.stream_ended is None:
            raise FrameError("a refusal without END_STREAM")
        connection.move(ConnectionStep.REFUSED)
        self._events.append(Refused(connection.stream, code))
        self._reset_http2(connection.stream, ErrorCodes.CANCEL)
        self._remove(connection)

    def _on_peer_reset(self, connection: Connection, error: int) -> None:
        if connection.state is ConnectionState.REQUESTED and error == ErrorCodes.REFUSED_STREAM:
            connection.move(ConnectionStep.REFUSED)
            self._events.append(Declined(connection.stream))
            self._remove(connection)
        else:
            super()._on_peer_reset(connection, error)

    def _on_settings(self, event: h2_events.RemoteSettingsChanged) -> None:
        super()._on_settings(event)
        setting = event.changed_settings.get(SettingCodes.MAX_CONCURRENT_STREAMS)
        if setting is None:
            return
        self._allowed = setting.new_value
        if not self._allowed and not self._draining:
            self._draining = True
            self._events.append(Draining())

    _HANDLERS = Multiplexer._HANDLERS | {
        h2_events.ResponseReceived: _on_answer,
        h2_events.RemoteSettingsChanged: _on_settings,
    }
