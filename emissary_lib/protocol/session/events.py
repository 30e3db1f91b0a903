"""What a session tells its driver: frozen facts, taken one by one from ``Session.next_event``."""

from __future__ import annotations

from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.record import Record
from emissary_lib.protocol.wire.payloads import Opened


class RelayOpened(Record):
    """The relay's first message arrived, with the outcome of the dial and the session's limits."""

    parameters: Opened


class GoingAway(Record):
    """The relay announced its end, ``remaining`` milliseconds from now."""

    code: Code
    remaining: int


class PeerMoved(Record):
    """The peer has a new connection; what is for it goes to that one from now on."""

    connection: str


class LinkDead(Record):
    """Our own WebSocket does not answer any more; the driver has to drop it and reconnect."""


class MessagesShortened(Record):
    """The gateway passes on no message of more than one fragment (docs/protocol.md section 4.8)."""


class Aborted(Record):
    """The session was cut off: an error at the socket. At most once, and never after a clean end.

    Attributes:
        code: Why.
        reason: The same in words.
        whole: Whether nothing is missing but the end of the peer's stream: ours was over and the peer's user
            has all of it, and we have all that the peer's user had written.
    """

    code: Code
    reason: str
    whole: bool = False


class Finished(Record):
    """Nothing more will be sent; the link may be closed. Always the last event."""

    code: Code


Event = RelayOpened | GoingAway | PeerMoved | LinkDead | MessagesShortened | Aborted | Finished
