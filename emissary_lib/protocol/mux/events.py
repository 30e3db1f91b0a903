"""What a shared session tells its driver: frozen facts, taken one by one from ``next_event``.

``stream`` is the connection's number, as ``open`` gave it or :class:`Requested` told; no number comes twice.
"""

from __future__ import annotations

from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.record import Record
from emissary_lib.protocol.targets.allow_list import Target


class Requested(Record):
    """At the relay: the dialer wants a connection. Answer by ``accept`` or ``refuse``."""

    stream: int
    target: Target


class Opened(Record):
    """At the dialer: the relay is connected to the target. Bytes may be sent from now on."""

    stream: int


class Refused(Record):
    """At the dialer: the target was not reached. The connection is over; nothing more is told of it."""

    stream: int
    code: Code


class Declined(Record):
    """At the dialer: this relay takes no more connections now, and has done nothing for this one: it is over.

    The same dial may be made over another relay at once.
    """

    stream: int


class Draining(Record):
    """At the dialer: this relay takes no more connections; those that are open go on. At most once."""


class Readable(Record):
    """Bytes of the peer's have come where none waited, or the end of its stream has."""

    stream: int


class Writable(Record):
    """There is room again for bytes of a connection, after ``send_data`` took fewer than it was given."""

    stream: int


class CutOff(Record):
    """The peer has cut a connection off, or the session was cut off, and the connection with it.

    What came before may still be read (``peek``, ``consume``); then reset the user's socket. ``reset``
    forgets what was not read.

    Attributes:
        stream: Which.
        code: Why.
        whole: Whether nothing is missing but the end of the peer's stream, and TLS alerts: ours was over and
            the peer's user has all else of it, and we have all that the peer's user had written.
        lost: Bytes that our user has written and the peer's user has not taken, as far as is known; 0 if they
            are TLS alerts alone.
    """

    stream: int
    code: Code
    whole: bool
    lost: int


class Left(Record):
    """A connection whose user was lost (``user_lost``) is over.

    Attributes:
        stream: Which.
        code: Why it ended: as ``user_lost`` was told, or of the peer, which has cut it off before.
        lost: Bytes that the user had written and that did not go out; or, after a cut by the peer, as of
            :class:`CutOff`. What went out arrives if the session lives on.
    """

    stream: int
    code: Code
    lost: int


class Closed(Record):
    """A connection is over, and clean: each user has all that the other wrote, as far as is known here.

    Both streams have ended, and the user's socket may be closed; ``receive_ended`` says no more of it.
    """

    stream: int


Event = Requested | Opened | Refused | Declined | Draining | Readable | Writable | CutOff | Left | Closed
