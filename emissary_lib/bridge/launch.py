"""The event that starts a relay (docs/protocol.md section 3.4).

It holds two tokens in the clear. So it is never logged, and the function has no failure destination.
"""

from __future__ import annotations

import base64
from typing import Any

from emissary_lib.bridge.session import SessionRecord
from emissary_lib.protocol.constants import VERSION
from emissary_lib.protocol.targets.allow_list import Target
from emissary_lib.protocol.wire.base64 import encode_unpadded


def launch_event(
    session: SessionRecord,
    *,
    target: Target,
    relay_token: bytes,
    resume_token: bytes,
    server_bytes: bytes,
    client_offset: int,
    early: bytes,
    window: int,
) -> dict[str, Any]:
    """The relay's event, ready for JSON.

    Args:
        session: The session as launched.
        target: Where to connect; the relay checks it against its own allow-list.
        relay_token: 32 bytes; what the relay claims with.
        resume_token: 32 bytes; what the relay tells the dialer in OPENED.
        server_bytes: The server's stream so far, without the SOCKS5 reply.
        client_offset: Bytes of the dialer's stream that the SOCKS5 exchange used.
        early: Bytes of the dialer's stream behind them, as far as contiguous.
        window: The dialer's window, in bytes.
    """
    return {
        "version": VERSION,
        "session": session.id,
        "target": {"host": target.host, "port": target.port},
        "relay_token": encode_unpadded(relay_token),
        "resume_token": encode_unpadded(resume_token),
        "server_bytes": base64.b64encode(server_bytes).decode("ascii"),
        "client_offset": client_offset,
        "early": base64.b64encode(early).decode("ascii"),
        "window": window,
        "dialer_connection": session.dialer.connection,
        "dialer_epoch": session.dialer.epoch,
        "expires": session.expires,
        "host": session.host,
    }
