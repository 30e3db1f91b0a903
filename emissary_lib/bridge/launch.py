"""The event that starts a relay: written by ``$default``, read by the relay (docs/protocol.md section 3.4).

It holds two tokens in the clear. So it is never logged, and the function has no failure destination.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any, Final

from emissary_lib.protocol.constants import VERSION
from emissary_lib.protocol.errors import EmissaryError, RemoteProtocolError, UnsupportedVersionError
from emissary_lib.protocol.record import Record, hidden
from emissary_lib.protocol.targets.allow_list import Target
from emissary_lib.protocol.wire.base64 import decode_unpadded, encode_unpadded

_SESSION_ID: Final = re.compile("[0-9a-f]{64}")
_RESUME_TOKEN_BYTES: Final = 32


class Launch(Record):
    """What ``$default`` tells the relay of its session.

    Attributes:
        session: The session id.
        target: Where to connect; the relay checks it against its own allow-list.
        relay_token: What the relay claims with; it need not understand it.
        resume_token: What it tells the dialer in OPENED, 32 bytes.
        server_bytes: The server's stream so far, without the SOCKS5 reply.
        client_offset: Bytes of the dialer's stream that the SOCKS5 exchange used.
        early: Bytes of the dialer's stream behind them, as far as contiguous.
        window: The dialer's window, in bytes.
        dialer_connection: Where to post what is for the dialer.
        dialer_epoch: Which of the dialer's connections that is.
        expires: When the opening expires, in seconds since 1970 UTC.
        host: The API's host, as signed. No relay reads it.
        key_id: The key of the dialer's upgrade, for the relay's log; None from an older bridge.
        short: Whether messages of more than one fragment are known not to pass (section 4.8).
    """

    session: str
    target: Target
    relay_token: bytes = hidden()
    resume_token: bytes = hidden()
    server_bytes: bytes = hidden()
    client_offset: int
    early: bytes = hidden()
    window: int
    dialer_connection: str
    dialer_epoch: int
    expires: float
    host: str = ""
    key_id: int | None = None
    short: bool = False

    def to_event(self) -> dict[str, Any]:
        """The event, ready for JSON."""
        return {
            "version": VERSION,
            "session": self.session,
            "target": {"host": self.target.host, "port": self.target.port},
            "relay_token": encode_unpadded(self.relay_token),
            "resume_token": encode_unpadded(self.resume_token),
            "server_bytes": base64.b64encode(self.server_bytes).decode("ascii"),
            "client_offset": self.client_offset,
            "early": base64.b64encode(self.early).decode("ascii"),
            "window": self.window,
            "dialer_connection": self.dialer_connection,
            "dialer_epoch": self.dialer_epoch,
            "expires": self.expires,
            "host": self.host,
            "key_id": self.key_id,
            "short": self.short,
        }

    @classmethod
    def parse(cls, event: Mapping[str, Any]) -> Launch:
        """Read an event.

        Raises:
            UnsupportedVersionError: Of another version, or no such event.
            RemoteProtocolError: It is malformed; the text never shows a token.
        """
        version = event.get("version") if isinstance(event, Mapping) else None
        if version != VERSION:
            raise UnsupportedVersionError(f"the launch event is of version {version!r}, not {VERSION}")
        try:
            return cls(
                session=_session_id(event["session"]),
                target=Target.parse((str(event["target"]["host"]), int(event["target"]["port"]))),
                relay_token=decode_unpadded(_text(event["relay_token"])),
                resume_token=_resume_token(event["resume_token"]),
                server_bytes=binascii.a2b_base64(event["server_bytes"], strict_mode=True),
                client_offset=int(event["client_offset"]),
                early=binascii.a2b_base64(event["early"], strict_mode=True),
                window=int(event["window"]),
                dialer_connection=_text(event["dialer_connection"]),
                dialer_epoch=int(event["dialer_epoch"]),
                expires=_time(event["expires"]),
                host=str(event.get("host", "")),
                key_id=None if event.get("key_id") is None else int(event["key_id"]),
                short=event.get("short") is True,
            )
        except (LookupError, TypeError, ValueError, ArithmeticError, EmissaryError) as exc:
            raise RemoteProtocolError(f"the launch event is malformed: {type(exc).__name__}") from None


def _session_id(text: str) -> str:
    # It becomes a header of the dial-back: nothing else may slip in with it.
    if not _SESSION_ID.fullmatch(text):
        raise ValueError("no session id")
    return text


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("no text")
    return value


def _time(value: str | float) -> float:
    seconds = float(value)
    if not abs(seconds) < float("inf"):  # nor NaN, which no clock ever reaches
        raise ValueError("no time")
    return seconds


def _resume_token(text: str) -> bytes:
    token = decode_unpadded(text)
    if len(token) != _RESUME_TOKEN_BYTES:
        raise ValueError("a token of another length")
    return token
