"""Which end of which session a WebSocket connection belongs to, as far as its upgrade request shows.

The gateway itself does not care; cutting connections of one side, or of both sides of one session, does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from emissary_lib.protocol.auth.headers import NONCE, RELAY_TOKEN, SESSION
from emissary_lib.protocol.auth.macs import session_id
from emissary_lib.protocol.wire.base64 import EncodingError, decode_unpadded


@dataclass(frozen=True, slots=True)
class Caller:
    """Who opened a connection.

    Attributes:
        side: ``dialer`` or ``relay``; whoever shows no relay token is a dialer.
        session: The session's id, or empty if the request names none.
    """

    side: str = "dialer"
    session: str = ""


def caller(headers: Mapping[str, str]) -> Caller:
    """Read the headers of an upgrade request, whose names must be found in any case. Checks nothing."""
    side = "relay" if RELAY_TOKEN in headers else "dialer"
    if SESSION in headers:
        return Caller(side, headers[SESSION].strip())
    try:
        return Caller(side, session_id(decode_unpadded(headers[NONCE].strip())) if NONCE in headers else "")
    except EncodingError:
        return Caller(side)
