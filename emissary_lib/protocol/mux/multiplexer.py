"""What both ends of a shared session do: many connections in one byte stream (docs/protocol.md section 11).

The byte stream is the session's: it comes whole and in order, and one end of it is a function's, which has
an end. HTTP/2 itself is the library h2's; what is here decides who sends when, how much may wait where, and
what a peer may cost.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, ClassVar, Final

import h2.exceptions
from h2 import events as h2_events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.settings import SettingCodes, Settings

from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.errors import FlowControlError, FrameError, LocalProtocolError, RemoteProtocolError
from emissary_lib.protocol.mux.answers import POSITION_TYPE, Position, read_reset, reset_error
from emissary_lib.protocol.mux.connection import Connection
from emissary_lib.protocol.mux.events import Closed, CutOff, Event, Left, Readable, Writable
from emissary_lib.protocol.mux.gate import HEADER, RST_STREAM, FrameGate
from emissary_lib.protocol.mux.limits import (
    CLOSED_STREAMS,
    CONNECTION_WINDOW,
    HEADER_TABLE,
    MAX_CONNECTIONS,
    MAX_FRAME,
    MAX_HEADER_LIST,
    MAX_WAITING,
    QUANTUM,
    MuxLimits,
)
from emissary_lib.protocol.mux.scheduler import RoundRobin
from emissary_lib.protocol.mux.states import ConnectionState, ConnectionStep
from emissary_lib.protocol.mux.windows import WindowPool
from emissary_lib.protocol.user_loss import UserLoss
from emissary_lib.protocol.wire.text import clean

#: Length of the dialer's preface (RFC 9113 section 3.4).
_PREFACE: Final = 24

#: A frame is not cut shorter than this for want of room, in bytes: it waits for more.
_LEAST_PIECE: Final = 1_024

#: What the HTTP/2 connection has as window before it is told, in bytes (RFC 9113 section 6.9.2).
_FIRST_WINDOW: Final = 65_535


class _Http2(H2Connection):
    """h2's connection, with a shorter memory for streams that are closed, and nothing to say to a log.

    h2 writes out each frame that comes for its logger, in hexadecimal and whole, though none is set: a third
    of what taking a DATA frame costs. No setting changes that (4.4.1). So a frame is told here what to say
    of its body. Both names are h2's and hyperframe's own; without them all goes on as before, only slower.
    """

    MAX_CLOSED_STREAMS = CLOSED_STREAMS

    def _receive_frame(self, frame: Any) -> list[h2_events.Event]:
        frame._body_repr = _say_nothing
        return super()._receive_frame(frame)


def _say_nothing() -> str:
    return ""


class Multiplexer:
    """One side of a shared session; not made itself, but as dialer's or relay's.

    Driven by the session's stream (:meth:`receive`, :meth:`receive_eof`), the users' sockets, and by
    :meth:`data_to_send` whenever the session has room. What happened is in :meth:`next_event`. A connection
    that is over, or that nobody ever heard of, takes no bytes and has none; to act on it does nothing, since
    its end may have come before the driver knew.

    Args:
        limits: How much this side holds.
        client: Whether this is the dialer's side.
        now: Seconds on a monotonic clock.

    Thread safety: none; the owner of the session serialises every call. Nothing blocks.
    """

    def __init__(self, limits: MuxLimits, *, client: bool, now: float) -> None:
        self._limits = limits
        self._http2 = _Http2(H2Configuration(client_side=client, header_encoding=None))
        settings = {
            SettingCodes.HEADER_TABLE_SIZE: HEADER_TABLE,
            SettingCodes.ENABLE_PUSH: 0,
            SettingCodes.MAX_CONCURRENT_STREAMS: 0 if client else limits.connections,
            SettingCodes.INITIAL_WINDOW_SIZE: limits.window,
            SettingCodes.MAX_FRAME_SIZE: MAX_FRAME,
            SettingCodes.MAX_HEADER_LIST_SIZE: MAX_HEADER_LIST,
        }
        self._http2.local_settings = Settings(client=client, initial_values=settings)
        self._http2.decoder.max_header_list_size = MAX_HEADER_LIST
        self._http2.initiate_connection()
        # What h2 itself refuses is more: it would end the session for a request that was sent before the
        # number was known, which has to be declined (11.3-6), and for an answer to what the dialer gave up.
        settings[SettingCodes.MAX_CONCURRENT_STREAMS] = MAX_CONNECTIONS
        self._http2.local_settings = Settings(client=client, initial_values=settings)
        self._http2.increment_flow_control_window(CONNECTION_WINDOW - _FIRST_WINDOW)
        self._gate = FrameGate(0 if client else _PREFACE, now)
        self._pool = WindowPool(limits)
        self._ready = RoundRobin()
        self._connections: dict[int, Connection] = {}
        self._highest = 0  # number of the newest connection
        self._out = bytearray(self._http2.data_to_send())
        self._unreturned = 0  # bytes that came and that the connection's window has not back
        self._reports: dict[int, Connection] = {}  # whose position is to be told
        self._events: deque[Event] = deque()
        self._now = now
        self._error: RemoteProtocolError | None = None
        self._over = False  # the session was cut off

    # -- the session's stream -------------------------------------------------------------------

    def receive(self, data: bytes, now: float) -> None:
        """Take the next bytes of the session's stream, cut in any way.

        All of them are taken: what a connection's user does not take fits into its window. So the driver
        consumes whatever the session has.

        Args:
            data: The bytes.
            now: Seconds on a monotonic clock.

        Raises:
            RemoteProtocolError: The peer broke a rule; FlowControlError and FrameError say more. The session
                has to be aborted with the error's ``code``, and every later call raises the same error. Each
                connection is cut off, and nothing of it can be read any more.
        """
        if self._error is not None:
            raise self._error
        self._now = now
        if self._over:
            return
        try:
            self._gate.check(data, now)
            for event in self._http2.receive_data(data):
                if handler := self._HANDLERS.get(type(event)):
                    handler(self, event)
            self._collect_answers()
            self._return_windows()
        except RemoteProtocolError as exc:
            raise self._fail(exc) from None
        except h2.exceptions.ProtocolError as exc:
            raise self._fail(_translate(exc)) from exc

    def receive_eof(self) -> None:
        """The session's stream has ended. End ours (``session.send_eof``) when :attr:`idle`.

        What came of a connection that the peer has cut off may still be read.

        Raises:
            RemoteProtocolError: A connection is not over yet, or a frame is not whole.
        """
        open_ones = any(each.state is not ConnectionState.CLOSED for each in self._connections.values())
        if not self._over and (open_ones or not self._gate.between_frames):
            self._fail(RemoteProtocolError("the stream of a shared session ends within a connection"))
        if self._error is not None:
            raise self._error

    def data_to_send(self, room: int) -> bytes:
        """The next bytes for the session's stream, drained.

        Args:
            room: How many there may be: no more than ``session.send_room``, and so many that no more than
                ``SESSION_BACKLOG`` wait there unsent. A little of it may be left unused while more waits: a
                frame is not cut to pieces for the last few bytes. Nothing happens without any.

        Returns:
            At most ``room`` bytes, which the session has to take all.
        """
        out, room = self._out, max(0, room)
        if self._reports and len(out) < room:
            for reporting in self._reports.values():
                self._send_position(reporting, Code.OK)
            self._reports.clear()
        while len(out) < room and (connection := self._ready.head) is not None:
            if not self._send_piece(connection, room - len(out) - HEADER):
                break
        data = bytes(out[:room])
        del out[:room]
        return data

    @property
    def idle(self) -> bool:
        """Whether no connection is left, and nothing waits to be sent: the dialer may end the session."""
        return not self._connections and not self._out

    @property
    def connections(self) -> int:
        """How many are not over, those included whose last bytes a user has not taken yet."""
        return len(self._connections)

    @property
    def buffered(self) -> tuple[int, int]:
        """Bytes of all connections together that wait to be sent, and that wait for a user to take them."""
        each = self._connections.values()
        return len(self._out) + sum(len(c.unsent) for c in each), sum(len(c.received) for c in each)

    @property
    def framed(self) -> int:
        """Bytes that :meth:`data_to_send` gives next whatever comes: frames that are made already."""
        return len(self._out)

    def next_event(self) -> Event | None:
        """What has happened, in order; ``None`` when there is nothing more."""
        return self._events.popleft() if self._events else None

    def next_timeout(self) -> float | None:
        """When :meth:`handle_timeout` has to be called, on the clock of ``now``; ``None``: not on its own."""
        return min((loss.until for _, loss in self._lost_users()), default=None)

    def handle_timeout(self, now: float, *, away: bool = False) -> None:
        """Do what the clock makes due; harmless when nothing is. :meth:`data_to_send` has the outcome.

        Call it whenever bytes may have moved, too: what it finds to have moved since the call before, it
        takes to have moved now.

        Args:
            now: Seconds on a monotonic clock.
            away: Whether the session has no WebSocket: the time until then does not count.
        """
        self._now = now
        for connection, loss in self._lost_users():
            # While its turn is still to come, it is not the reader that holds it up, but all that go first.
            loss.look(connection.sent, now, paused=away or connection.scheduled)
            if now >= loss.until:
                self._leave(connection, loss)

    def cut_off_all(self, code: Code) -> None:
        """The session is cut off, and with it each connection that is not over (docs/protocol.md 11.4-9).

        First give :meth:`receive` all that the session has. From now on nothing is sent, and nothing more is
        taken from it; what came before may still be read. Idempotent.

        Args:
            code: Why the session is cut off: each connection's :class:`CutOff` tells it, unless the peer had
                told another.

        Raises:
            LocalProtocolError: ``code`` is OK.
        """
        _require_reason(code)
        self._over = True
        for connection in list(self._connections.values()):
            if connection.state is not ConnectionState.CLOSED:
                self._cut_off(connection, connection.told_code or code)
        self._out.clear()

    # -- one connection, to the peer ------------------------------------------------------------

    def send_room(self, stream: int) -> int:
        """How many bytes :meth:`send_data` would take now; 0 unless the connection is open."""
        connection = self._connections.get(stream)
        if connection is None or not connection.writable:
            return 0
        return self._limits.send_buffer - len(connection.unsent)

    def send_data(self, stream: int, data: bytes | memoryview) -> int:
        """Queue bytes for the peer's user.

        Returns:
            How many were taken; :class:`Writable` tells when there is room again, if that was not all.
        """
        connection = self._connections.get(stream)
        taken = min(len(data), self.send_room(stream))
        if connection is not None and connection.writable:
            connection.starved = taken < len(data)
            connection.write(data[:taken])
            self._schedule(connection)
        return taken

    def send_eof(self, stream: int) -> None:
        """End our stream behind what was queued. Idempotent."""
        connection = self._connections.get(stream)
        if connection is not None and connection.writable:
            connection.ending = True
            connection.starved = False
            self._ready.add(connection)

    def reset(self, stream: int, code: Code) -> None:
        """Cut a connection off; nothing more is told of it, and its bytes are dropped, both ways.

        Args:
            stream: Which. One that the peer has cut off is only forgotten.
            code: Why, for the peer: TARGET_RESET or DIALER_RESET, as a rule.

        Raises:
            LocalProtocolError: ``code`` is OK.
        """
        _require_reason(code)
        connection = self._connections.get(stream)
        if connection is None:
            return
        if connection.state is not ConnectionState.CLOSED:
            self._send_reset(connection, code)
            connection.move(ConnectionStep.CUT_OFF)
        self._remove(connection)

    def user_lost(self, stream: int, code: Code, now: float, *, unread: int = 0) -> None:
        """Our user's connection broke: as :meth:`reset`, once all that :meth:`send_data` took has gone out.

        Or once no more of it does (docs/protocol.md 11.4-12). Until then the connection is one of
        :attr:`connections` and has its figures, but takes nothing and has nothing to read; :class:`Left`
        tells of its end, and nothing else is told. An end that was not sent yet is not sent any more.
        Idempotent.

        Args:
            stream: Which. One that the peer has cut off is only forgotten.
            code: Why, for the peer: TARGET_RESET or DIALER_RESET, as a rule.
            now: Seconds on a monotonic clock.
            unread: Bytes of the user's that :meth:`send_data` did not take; the peer is told of them.

        Raises:
            LocalProtocolError: ``code`` is OK.
        """
        _require_reason(code)
        self._now = now
        connection = self._connections.get(stream)
        if connection is None or connection.loss is not None:
            return
        connection.loss = UserLoss(code, "", unread, connection.sent, now)
        connection.ending = connection.starved = False
        connection.drop_received()
        if connection.state is ConnectionState.CLOSED:
            self._remove(connection)
        elif connection.unsent:
            self._return_dropped(connection)
        else:
            self._leave(connection, connection.loss)

    def _leave(self, connection: Connection, loss: UserLoss) -> None:
        """Cut off a connection whose user is gone: what it wrote has gone out, or no more of it will."""
        self._events.append(Left(connection.stream, loss.code, len(connection.unsent)))
        self.reset(connection.stream, loss.code)

    def _lost_users(self) -> list[tuple[Connection, UserLoss]]:
        """Connections that only their users' last bytes hold."""
        return [(each, each.loss) for each in self._connections.values() if each.loss is not None]

    def _send_reset(self, connection: Connection, code: Code) -> None:
        self._send_position(connection, code)
        if connection.state is not ConnectionState.ENDED:
            self._reset_http2(connection.stream, reset_error(code))

    def _reset_http2(self, stream: int, error: ErrorCodes) -> None:
        # What came in one piece with what we answer here may have closed the stream already.
        try:
            self._http2.reset_stream(stream, error)
        except h2.exceptions.StreamClosedError:
            pass
        self._collect()

    # -- one connection, its figures ------------------------------------------------------------

    def written(self, stream: int) -> int:
        """How many bytes :meth:`send_data` took; 0 if the connection is over, as all these."""
        connection = self._alive(stream)
        return 0 if connection is None else connection.written

    def unsent(self, stream: int) -> int:
        """How many of these wait here."""
        connection = self._alive(stream)
        return 0 if connection is None else len(connection.unsent)

    def lost(self, stream: int) -> int:
        """How many of these the peer's user has not taken, as far as is known: what a cut would lose now."""
        connection = self._alive(stream)
        return 0 if connection is None else connection.lost

    def arrived(self, stream: int) -> int:
        """How many bytes of the peer's stream have come, whether our user has taken them or not."""
        connection = self._alive(stream)
        return 0 if connection is None else connection.arrived

    def _alive(self, stream: int) -> Connection | None:
        connection = self._connections.get(stream)
        return None if connection is None or connection.state is ConnectionState.CLOSED else connection

    # -- one connection, from the peer ----------------------------------------------------------

    def peek(self, stream: int, limit: int) -> bytes:
        """The first bytes that wait for the user, at most ``limit``; empty if none do."""
        connection = self._connections.get(stream)
        return bytes(connection.received[:limit]) if connection is not None else b""

    def consume(self, stream: int, count: int) -> None:
        """The user took ``count`` bytes of what :meth:`peek` showed; frees the connection's window.

        Raises:
            LocalProtocolError: Fewer bytes wait.
        """
        connection = self._connections.get(stream)
        if connection is None or connection.loss is not None or not count:
            return
        if count > len(connection.received):
            raise LocalProtocolError(f"{count} bytes taken, of {len(connection.received)} that waited")
        del connection.received[:count]
        if connection.state is ConnectionState.CLOSED:
            self._pool.end(connection)
            if not connection.received:
                self._remove(connection)
        elif connection.end_received:
            self._pool.end(connection)
            self._release_at_end(connection)
            self._close_if_over(connection)
        elif granted := self._pool.grant(connection, self._now):
            self._http2.increment_flow_control_window(granted, connection.stream)
            self._collect()

    def receive_ended(self, stream: int) -> bool:
        """Whether the peer's stream has ended and the user has taken all bytes of it."""
        connection = self._connections.get(stream)
        if connection is None or connection.loss is not None:
            return False
        return connection.end_received and not connection.received

    def report(self, stream: int) -> None:
        """Tell the peer, with the next bytes, how far our user has got (docs/protocol.md 11.4-5)."""
        connection = self._alive(stream)
        if connection is not None:
            self._reports[stream] = connection

    def _release_at_end(self, connection: Connection) -> None:
        """All of the peer's stream may just have been taken."""
        raise NotImplementedError

    def _waits_for_end(self, connection: Connection) -> bool:
        """Whether a connection whose streams have ended lacks something on this side."""
        raise NotImplementedError

    # -- out ------------------------------------------------------------------------------------

    def _send_piece(self, connection: Connection, room: int) -> bool:
        """Send one DATA frame of the connection whose turn it is; False if nobody can send now."""
        window = self._http2.local_flow_control_window(connection.stream)
        waiting = len(connection.unsent)
        size = max(0, min(waiting, QUANTUM, window))  # SETTINGS can make a window negative
        if waiting and not size:
            if self._http2.outbound_flow_control_window <= 0:
                return False
            self._ready.served(again=False)  # its window is closed: WINDOW_UPDATE brings it back
            return True
        if size > room:
            if room < _LEAST_PIECE:
                return False
            size = room
        data = bytes(connection.unsent[:size])
        ends = connection.ending and size == waiting
        self._http2.send_data(connection.stream, data, end_stream=ends)
        del connection.unsent[:size]
        self._collect()
        self._gate.sent()
        self._ready.served(again=waiting > size)
        if connection.starved and waiting - size <= self._limits.send_buffer // 2:
            connection.starved = False
            self._events.append(Writable(connection.stream))
        if connection.loss is not None and not connection.unsent:
            self._leave(connection, connection.loss)
        if ends:
            connection.move(ConnectionStep.END_SENT)
            self._close_if_over(connection)
        return True

    def _send_position(self, connection: Connection, code: Code) -> None:
        # Behind what h2 has written, and so never within a header block.
        self._out += connection.position(code).encode(connection.stream)

    def _collect(self) -> None:
        """Take what h2 has to send, so that it stands in order with what is ours."""
        self._out += self._http2.data_to_send()

    def _collect_answers(self) -> None:
        """Take what h2 answers to what came, but for its resets of closed streams.

        It sends one for each frame that was under way when we reset a stream: many, and they tell nothing.
        """
        answers = self._http2.data_to_send()
        position = 0
        while position < len(answers):
            end = position + HEADER + int.from_bytes(answers[position : position + 3], "big")
            frame = answers[position:end]
            if frame[3] != RST_STREAM or int.from_bytes(frame[HEADER:], "big") != ErrorCodes.STREAM_CLOSED:
                self._out += frame
            position = end
        if len(self._out) > MAX_WAITING:
            raise RemoteProtocolError("the peer of the shared session makes us answer more than it takes")

    def _return_windows(self) -> None:
        """Give the connection's window back: the streams' windows alone hold a peer up.

        And those of streams that nobody reads any more.
        """
        if self._unreturned >= CONNECTION_WINDOW // 4:
            self._http2.increment_flow_control_window(self._unreturned)
            self._unreturned = 0
            self._collect()
        for connection, _ in self._lost_users():
            self._return_dropped(connection)

    def _return_dropped(self, connection: Connection) -> None:
        if connection.end_received:
            self._pool.end(connection)
        elif granted := self._pool.give_back(connection):
            self._http2.increment_flow_control_window(granted, connection.stream)
            self._collect()

    def _schedule(self, connection: Connection) -> None:
        if connection.unsent:
            self._ready.add(connection)

    # -- in -------------------------------------------------------------------------------------

    def _admit(self, stream: int, connection: Connection) -> None:
        self._connections[stream] = connection
        self._pool.admit(connection, self._now)

    def _on_data(self, event: h2_events.DataReceived) -> None:
        data = event.data
        self._unreturned += event.flow_controlled_length
        connection = self._connections.get(event.stream_id)
        if connection is None or connection.state is ConnectionState.CLOSED:
            return  # it was under way when we cut the connection off
        if connection.state is ConnectionState.REQUESTED:
            raise FrameError("DATA on a connection that is not open")
        if data and not connection.received and connection.loss is None:
            self._events.append(Readable(connection.stream))
        connection.received += data
        connection.arrived += len(data)
        connection.credit -= len(data)  # h2 knows no other, and has refused what is beyond
        if connection.loss is not None:
            connection.drop_received()

    def _on_end(self, event: h2_events.StreamEnded) -> None:
        connection = self._connections.get(event.stream_id)
        if connection is None or connection.state is ConnectionState.CLOSED:
            return
        if connection.state is ConnectionState.REQUESTED:
            raise FrameError("END_STREAM on a connection that is not open")
        connection.move(ConnectionStep.END_RECEIVED)
        self._pool.end(connection)
        if connection.loss is not None:
            return  # nobody has it
        self._events.append(Readable(connection.stream))
        self._release_at_end(connection)
        self._close_if_over(connection)

    def _on_reset(self, event: h2_events.StreamReset) -> None:
        if not event.remote_reset:
            # The peer broke a rule of one stream's. It is no stranger's: nothing it says can be relied on.
            if event.error_code == ErrorCodes.FLOW_CONTROL_ERROR:
                raise FlowControlError("a window of more than 2,147,483,647 bytes")
            raise FrameError(f"frames on a stream that has ended ({event.error_code!r})")
        connection = self._connections.get(event.stream_id)
        if connection is not None and connection.state is not ConnectionState.CLOSED:
            self._on_peer_reset(connection, int(event.error_code or 0))

    def _on_peer_reset(self, connection: Connection, error: int) -> None:
        self._cut_off(connection, connection.told_code or read_reset(error))

    def _cut_off(self, connection: Connection, code: Code) -> None:
        told = CutOff(connection.stream, code, connection.whole, connection.lost)
        connection.move(ConnectionStep.CUT_OFF)
        connection.unsent.clear()
        self._ready.remove(connection)
        self._reports.pop(connection.stream, None)
        self._pool.end(connection)
        if connection.loss is not None:
            self._events.append(Left(connection.stream, code, connection.lost))
        else:
            self._events.append(told)
        if not connection.received:
            self._remove(connection)

    def _on_window(self, event: h2_events.WindowUpdated) -> None:
        if connection := self._connections.get(event.stream_id):
            self._schedule(connection)

    def _on_settings(self, event: h2_events.RemoteSettingsChanged) -> None:
        changed = {code: setting.new_value for code, setting in event.changed_settings.items()}
        if changed.get(SettingCodes.HEADER_TABLE_SIZE, 0) > HEADER_TABLE:
            raise FrameError(f"HEADER_TABLE_SIZE is above {HEADER_TABLE}")
        if changed.get(SettingCodes.ENABLE_PUSH, 0):
            raise FrameError("ENABLE_PUSH is not 0")
        for connection in self._connections.values():
            self._schedule(connection)

    def _on_goaway(self, event: h2_events.ConnectionTerminated) -> None:
        raise RemoteProtocolError(
            f"the peer ends the shared session's HTTP/2 connection ({event.error_code!r})"
        )

    def _on_wrong_headers(self, event: h2_events.Event) -> None:
        raise FrameError(f"HTTP/2 headers that are neither request nor answer ({type(event).__name__})")

    def _on_unknown(self, event: h2_events.UnknownFrameReceived) -> None:
        frame: Any = event.frame
        if frame.type != POSITION_TYPE:
            return
        position = Position.decode(bytes(frame.body))
        if not 0 < frame.stream_id <= self._highest or frame.stream_id % 2 == 0:
            raise FrameError("POSITION of a connection that was never opened")
        connection = self._connections.get(frame.stream_id)
        if connection is None or connection.state is ConnectionState.CLOSED:
            return
        if not connection.peer_taken <= position.taken <= connection.sent:
            raise FrameError(f"POSITION tells of {position.taken} bytes taken, of {connection.sent} sent")
        connection.peer_taken = position.taken
        connection.peer_written = position.written
        connection.told_code = position.code
        self._close_if_over(connection)

    _HANDLERS: ClassVar[dict[type[h2_events.Event], Callable[[Any, Any], None]]] = {
        h2_events.DataReceived: _on_data,
        h2_events.StreamEnded: _on_end,
        h2_events.StreamReset: _on_reset,
        h2_events.WindowUpdated: _on_window,
        h2_events.RemoteSettingsChanged: _on_settings,
        h2_events.ConnectionTerminated: _on_goaway,
        h2_events.RequestReceived: _on_wrong_headers,
        h2_events.ResponseReceived: _on_wrong_headers,
        h2_events.TrailersReceived: _on_wrong_headers,
        h2_events.InformationalResponseReceived: _on_wrong_headers,
        h2_events.UnknownFrameReceived: _on_unknown,
    }

    # -- the end --------------------------------------------------------------------------------

    def _close_if_over(self, connection: Connection) -> None:
        if connection.state is not ConnectionState.ENDED:
            return  # if the peer has told why it cuts the connection off, RST_STREAM follows
        if connection.told_code is not Code.OK:
            # Of a stream that both have ended RST_STREAM is no news: it may have been sent before ours ended.
            self._cut_off(connection, connection.told_code)
        elif not connection.received and not self._waits_for_end(connection):
            connection.move(ConnectionStep.ALL_TAKEN)
            self._events.append(Closed(connection.stream))
            self._remove(connection)

    def _remove(self, connection: Connection) -> None:
        self._ready.remove(connection)
        self._reports.pop(connection.stream, None)
        self._pool.release(connection)
        del self._connections[connection.stream]

    def _fail(self, error: RemoteProtocolError) -> RemoteProtocolError:
        """Nothing moves any more, and nothing is held."""
        self.cut_off_all(error.code)
        for connection in list(self._connections.values()):
            self._remove(connection)
        self._error = error
        return error


def _require_reason(code: Code) -> None:
    if code is Code.OK:
        raise LocalProtocolError("nothing is cut off for OK")


def _translate(exc: h2.exceptions.ProtocolError) -> RemoteProtocolError:
    kind = FlowControlError if exc.error_code == ErrorCodes.FLOW_CONTROL_ERROR else RemoteProtocolError
    return kind(clean(f"the shared session's HTTP/2 is broken: {type(exc).__name__}: {exc}"))
