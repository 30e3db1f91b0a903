"""One connection of a shared session: its state, what has come, and what waits to be sent."""

from __future__ import annotations

from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.mux.answers import Position
from emissary_lib.protocol.mux.states import ConnectionState, ConnectionStep, step
from emissary_lib.protocol.stream.tls_alerts import LONGEST, ends_in_tls_alert, only_tls_alerts
from emissary_lib.protocol.targets.allow_list import Target
from emissary_lib.protocol.user_loss import UserLoss


class Connection:
    """Plain facts; :class:`~emissary_lib.protocol.mux.multiplexer.Multiplexer` acts on them.

    Args:
        stream: Its number.
        target: Where to.

    Attributes:
        state: Where it stands.
        received: Bytes that have come and were not taken.
        unsent: Bytes that wait to be sent.
        ending: Whether our stream ends behind them.
        written: Bytes that our user has written.
        arrived: Bytes of the peer's stream that have come.
        released: Whether our user has all of the peer's stream for good, its end included.
        peer_taken: How much of our stream the peer's user has taken, the end counted as one.
        peer_written: How much the peer's user had written, as far as was told.
        told_code: Why the peer cuts the connection off, as far as was told.
        window: What the peer's bytes may take of our memory; ``credit`` of it may still be sent.
        granted_at: When the peer last got credit, in seconds on a monotonic clock.
        scheduled: Whether the connection is in the scheduler.
        starved: Whether our user had more bytes than there was room for.
        loss: Our user's connection broke: what it wrote before goes out, and nothing else moves.
        dropped: Bytes of the peer's stream that nobody took and nobody will.
        tail: The last of what our user has written, as much as TLS alerts may have.
    """

    __slots__ = (
        "arrived", "credit", "dropped", "ending", "granted_at", "loss", "peer_taken", "peer_written",
        "received", "released", "scheduled", "starved", "state", "stream", "tail", "target", "told_code",
        "unsent", "window", "written",
    )  # fmt: skip

    def __init__(self, stream: int, target: Target) -> None:
        self.stream = stream
        self.target = target
        self.state = ConnectionState.REQUESTED
        self.received = bytearray()
        self.unsent = bytearray()
        self.ending = False
        self.written = 0
        self.arrived = 0
        self.released = False
        self.peer_taken = 0
        self.peer_written: int | None = None
        self.told_code = Code.OK
        self.window = 0
        self.credit = 0
        self.granted_at = 0.0
        self.scheduled = False
        self.starved = False
        self.loss: UserLoss | None = None
        self.dropped = 0
        self.tail = b""

    def move(self, what: ConnectionStep) -> None:
        """Take a step. Raises :class:`LocalProtocolError` if it cannot be taken."""
        self.state = step(self.state, what)

    @property
    def sends(self) -> bool:
        """Whether our stream is open: answered, not over, and not cut off."""
        return self.state in (ConnectionState.OPEN, ConnectionState.RECEIVE_ENDED)

    @property
    def writable(self) -> bool:
        """Whether our user may write: it has neither ended our stream nor gone."""
        return self.sends and not self.ending and self.loss is None

    @property
    def end_received(self) -> bool:
        """Whether the peer's END_STREAM has come."""
        return self.state in (ConnectionState.RECEIVE_ENDED, ConnectionState.ENDED)

    @property
    def end_sent(self) -> bool:
        """Whether ours went out."""
        return self.state in (ConnectionState.SEND_ENDED, ConnectionState.ENDED)

    @property
    def sent(self) -> int:
        """How much of our stream went out, its end counted as one."""
        return self.written - len(self.unsent) + self.end_sent

    @property
    def taken(self) -> int:
        """How much of the peer's stream our user has taken, its end counted as one."""
        return self.arrived - self.dropped - len(self.received) + self.released

    def write(self, data: bytes | memoryview) -> None:
        """Our user has written this."""
        self.unsent += data
        self.written += len(data)
        self.tail = (self.tail + bytes(data[-LONGEST:]))[-LONGEST:]

    @property
    def lost(self) -> int:
        """How much of what our user has written the peer's user has not taken, as far as is known.

        TLS alerts at the end do not count: nobody waits for them (docs/protocol.md rule 6-22).
        """
        count = max(0, self.written - self.peer_taken)
        told = 0 < count <= len(self.tail)
        return 0 if told and only_tls_alerts(self.tail[-count:]) else count

    @property
    def whole(self) -> bool:
        """Whether a cut has lost nothing but the end of the peer's stream (docs/protocol.md 11.4-8).

        Our own end need not have gone out: it may wait behind alerts that nobody takes any more.
        """
        over = self.ending or self.end_sent or ends_in_tls_alert(self.tail)
        ours = over and not self.lost
        told = self.told_code is not Code.OK
        return ours and (self.arrived == self.peer_written if told else self.end_received)

    def position(self, code: Code) -> Position:
        """What POSITION tells now; ``code``: why the connection is cut off, ``OK`` if it is not."""
        unread = 0 if self.loss is None else self.loss.unread
        return Position(self.written + unread, self.taken, code)

    def drop_received(self) -> None:
        """Nobody takes what has come."""
        self.dropped += len(self.received)
        self.received.clear()
