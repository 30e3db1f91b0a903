"""What a client's END may say, and which of its figures are believed (docs/protocol.md section 6).

END comes from whoever holds a key, or has taken a relay over, and becomes the record of the session. So a
client may give only the reasons that it can know, and figures that no session of this age can have had count
as none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from emissary_lib.bridge.session import EndRecord, SessionRecord
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.constants import MAX_MESSAGE_RATE, MAX_PAYLOAD
from emissary_lib.protocol.role import Role
from emissary_lib.protocol.wire.payloads import End

#: Told by ENDED alone, which no client has to repeat: only the bridge, or an operator, can find out.
_OF_THE_BRIDGE: Final = frozenset(
    {
        Code.OPENING_EXPIRED,
        Code.UNKNOWN_SESSION,
        Code.INCOMPLETE,
        Code.BRIDGE_ERROR,
        Code.KILLED,
        Code.SESSION_LIMIT,
        Code.CONFIGURATION_ERROR,
    }
)

#: How an opening is refused: no relay is there yet.
_BEFORE_THE_RELAY: Final = frozenset(
    {Code.COMMAND_NOT_SUPPORTED, Code.ADDRESS_NOT_SUPPORTED, Code.AUTHENTICATION_FAILED}
)

#: What each client can know: what it finds out itself, and what its peer's RESET or OPENED has told it, since
#: it reports that too if the peer cannot.
REPORTABLE: Final[Mapping[Role, frozenset[Code]]] = {
    Role.DIALER: frozenset(Code) - _OF_THE_BRIDGE,
    Role.RELAY: frozenset(Code) - _OF_THE_BRIDGE - _BEFORE_THE_RELAY,
}


class Figures(NamedTuple):
    """How much a session has carried: final offsets of its streams, and messages of its clients."""

    dialer_bytes: int
    relay_bytes: int
    dialer_messages: int
    relay_messages: int


def reported_end(role: Role, end: End, *, by: str, at: float) -> EndRecord:
    """What a client's END becomes.

    Args:
        role: Who has sent it.
        end: What it says.
        by: Id of the request.
        at: When it came.
    """
    code, reason = end.code, ""
    if code not in REPORTABLE[role]:
        code, reason = Code.PROTOCOL_ERROR, f"the {role.value} reported {code.name}, which it cannot know"
    mine, peers = (end.sent, end.messages_sent), (end.received, end.messages_received)
    dialer, relay = (mine, peers) if role is Role.DIALER else (peers, mine)
    return EndRecord(
        code,
        dialer[0],
        relay[0],
        by,
        at,
        dialer_messages=dialer[1],
        relay_messages=relay[1],
        reason=reason,
        reporter=role,
        carried=(dialer[0], relay[0]) if role is Role.RELAY else None,
        connections=end.connections if role is Role.RELAY else None,
    )


def figures(session: SessionRecord) -> Figures | None:
    """The figures of a session that has ended; None if it cannot have carried so much in its time.

    They are no truer for that, only possible.
    """
    ending = session.ending
    if ending is None:
        return None
    carried = ending.carried or (ending.dialer_final, ending.relay_final)
    found = Figures(*carried, ending.dialer_messages, ending.relay_messages)
    # A second more than it was there: what a throttle of so many a second lets through at once.
    messages = MAX_MESSAGE_RATE * (max(0.0, ending.at - session.started) + 1)
    most = Figures(*[int(messages * MAX_PAYLOAD)] * 2, *[int(messages)] * 2)
    return found if all(each <= limit for each, limit in zip(found, most, strict=True)) else None
