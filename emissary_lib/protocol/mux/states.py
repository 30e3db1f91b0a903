"""The states of one connection in a shared session, as a table; dialer and relay walk through the same.

Source: docs/protocol.md section 11.4, whose diagram is generated from this table.
"""

from __future__ import annotations

import enum
from typing import Final

from emissary_lib.protocol.errors import LocalProtocolError


class ConnectionState(enum.Enum):
    """Where a connection stands."""

    #: Asked for, and not answered.
    REQUESTED = "requested"
    #: Both directions carry bytes.
    OPEN = "open"
    #: We have sent END_STREAM.
    SEND_ENDED = "send ended"
    #: The peer's END_STREAM has come.
    RECEIVE_ENDED = "receive ended"
    #: Both; the bytes may not all have been taken.
    ENDED = "ended"
    #: Nothing more is sent or expected.
    CLOSED = "closed"


class ConnectionStep(enum.Enum):
    """What moves a connection on."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    END_SENT = "end sent"
    END_RECEIVED = "end received"
    ALL_TAKEN = "all taken"
    CUT_OFF = "cut off"


TRANSITIONS: Final[dict[tuple[ConnectionState, ConnectionStep], ConnectionState]] = {
    (ConnectionState.REQUESTED, ConnectionStep.ACCEPTED): ConnectionState.OPEN,
    (ConnectionState.REQUESTED, ConnectionStep.REFUSED): ConnectionState.CLOSED,
    (ConnectionState.REQUESTED, ConnectionStep.CUT_OFF): ConnectionState.CLOSED,
    (ConnectionState.OPEN, ConnectionStep.END_SENT): ConnectionState.SEND_ENDED,
    (ConnectionState.OPEN, ConnectionStep.END_RECEIVED): ConnectionState.RECEIVE_ENDED,
    (ConnectionState.OPEN, ConnectionStep.CUT_OFF): ConnectionState.CLOSED,
    (ConnectionState.SEND_ENDED, ConnectionStep.END_RECEIVED): ConnectionState.ENDED,
    (ConnectionState.SEND_ENDED, ConnectionStep.CUT_OFF): ConnectionState.CLOSED,
    (ConnectionState.RECEIVE_ENDED, ConnectionStep.END_SENT): ConnectionState.ENDED,
    (ConnectionState.RECEIVE_ENDED, ConnectionStep.CUT_OFF): ConnectionState.CLOSED,
    (ConnectionState.ENDED, ConnectionStep.ALL_TAKEN): ConnectionState.CLOSED,
    (ConnectionState.ENDED, ConnectionStep.CUT_OFF): ConnectionState.CLOSED,
}


def step(state: ConnectionState, what: ConnectionStep) -> ConnectionState:
    """The state after ``what`` happened in ``state``.

    Raises:
        LocalProtocolError: It cannot happen there: a bug on this side.
    """
    try:
        return TRANSITIONS[state, what]
    except KeyError:
        raise LocalProtocolError(
            f"{what.value!r} cannot happen to a connection that is {state.value}"
        ) from None
