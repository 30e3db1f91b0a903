"""The ``X-Emissary-*`` headers: what each upgrade request must carry, and how it is read.

Nothing is verified here; :mod:`emissary_lib.protocol.auth.macs` does that. Source: docs/protocol.md sections
3.1, 3.4 and 3.7.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final

from emissary_lib.protocol.auth.httpdate import parse_http_date
from emissary_lib.protocol.constants import MAX_SHOWN_BYTES
from emissary_lib.protocol.errors import AuthenticationError
from emissary_lib.protocol.record import Record, hidden
from emissary_lib.protocol.wire.base64 import EncodingError, decode_unpadded, encode_unpadded

KEY_ID: Final = "X-Emissary-Key-Id"
DATE: Final = "X-Emissary-Date"
NONCE: Final = "X-Emissary-Nonce"
MAC: Final = "X-Emissary-Mac"
HOST: Final = "X-Emissary-Host"
OPENING: Final = "X-Emissary-Opening"
OPENING_MAC: Final = "X-Emissary-Opening-Mac"
SESSION: Final = "X-Emissary-Session"
RELAY_TOKEN: Final = "X-Emissary-Relay-Token"
RESUME_TOKEN: Final = "X-Emissary-Resume-Token"
INSTANCE: Final = "X-Emissary-Instance"
EPOCH: Final = "X-Emissary-Epoch"

#: Bytes of a nonce, of a MAC (HMAC-SHA256) and of a resume token.
SECRET_LENGTH: Final = 32

#: Bytes of a relay token's random part, and of the whole: key id, random part and MAC.
RELAY_TOKEN_RANDOM: Final = 16
RELAY_TOKEN_LENGTH: Final = 4 + RELAY_TOKEN_RANDOM + SECRET_LENGTH

_U32_MAX: Final = 0xFFFF_FFFF
_U32: Final = struct.Struct(">I")

#: Characters of a host's name (RFC 1035 section 2.3.4).
_HOST_MAX: Final = 255


class MissingCredentialsError(AuthenticationError):
    """A header of the upgrade request is absent or malformed: status 401.

    Attributes:
        header: Name of the header; its value is never shown.
    """

    def __init__(self, header: str, fault: str) -> None:
        super().__init__(f"header {header} {fault}")
        self.header = header


class _Reader:
    """Headers under names of any case, with one strict reading for each kind of value."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._values: dict[str, str] = {}
        for name, value in headers.items():
            lower = name.lower()
            if lower in self._values and lower.startswith("x-emissary-"):
                raise MissingCredentialsError(name, "is given twice")
            self._values[lower] = value

    def text(self, name: str) -> str:
        value = self._values.get(name.lower())
        if value is None:
            raise MissingCredentialsError(name, "is absent")
        return value.strip(" \t")

    def host(self, name: str) -> str:
        text = self._values.get(name.lower(), "").strip(" \t")
        if len(text) > _HOST_MAX:
            raise MissingCredentialsError(name, f"has more than {_HOST_MAX} characters")
        return text

    def number(self, name: str, *, least: int = 0) -> int:
        text = self.text(name)
        # str() of the number gives it back: no sign, no leading zero, no digit of another script.
        if len(text) <= 10 and text.isdecimal() and least <= int(text) <= _U32_MAX and str(int(text)) == text:
            return int(text)
        raise MissingCredentialsError(name, f"is not a decimal number from {least} to {_U32_MAX}")

    def date(self, name: str) -> str:
        text = self.text(name)
        try:
            parse_http_date(text)
        except AuthenticationError as error:
            raise MissingCredentialsError(name, "is not an HTTP date (IMF-fixdate)") from error
        return text

    def has(self, name: str) -> bool:
        return name.lower() in self._values

    def data(self, name: str) -> bytes:
        try:
            return decode_unpadded(self.text(name))
        except EncodingError:
            raise MissingCredentialsError(name, "is not unpadded base64") from None

    def secret(self, name: str, length: int = SECRET_LENGTH) -> bytes:
        data = self.data(name)
        if len(data) != length:
            raise MissingCredentialsError(name, f"holds {len(data)} bytes instead of {length}")
        return data

    def hexadecimal(self, name: str, digits: int) -> str:
        text = self.text(name)
        if len(text) != digits or text.strip("0123456789abcdef"):
            raise MissingCredentialsError(name, f"is not {digits} lower-case hexadecimal digits")
        return text


class ConnectHeaders(Record):
    """What a dialer shows on the upgrade (docs/protocol.md section 3.1).

    Attributes:
        key_id: Which key signed.
        date: HTTP date, exactly as sent.
        nonce: 32 random bytes, used once.
        mac: 32 bytes, label ``emissary.v2 door``.
        host: Which host it was made for, to tell one that was meant for another API from a wrong one; empty
            if that is not shown.
    """

    key_id: int
    date: str
    nonce: bytes = hidden()
    mac: bytes = hidden()
    host: str = ""

    def to_headers(self) -> dict[str, str]:
        """The headers of the upgrade request."""
        return {
            KEY_ID: str(self.key_id),
            DATE: self.date,
            NONCE: encode_unpadded(self.nonce),
            MAC: encode_unpadded(self.mac),
            **({HOST: self.host} if self.host else {}),
        }

    @classmethod
    def from_headers(cls, headers: Mapping[str, str]) -> ConnectHeaders:
        """Read the headers; names in any case.

        Raises:
            MissingCredentialsError: If one is absent, given twice or malformed.
        """
        reader = _Reader(headers)
        return cls(
            reader.number(KEY_ID),
            reader.date(DATE),
            reader.secret(NONCE),
            reader.secret(MAC),
            reader.host(HOST),
        )


class OpeningHeaders(Record):
    """What a dialer shows of its opening on the upgrade, so that a relay is launched at once (section 3.7).

    Attributes:
        window: The dialer's window, in bytes, 0 to 4294967295.
        stream: The first bytes of its stream, at most :data:`MAX_SHOWN_BYTES`. They hold the SOCKS5 password.
        mac: 32 bytes, label ``emissary.v2 opening``.
    """

    window: int
    stream: bytes = hidden()
    mac: bytes = hidden()

    @property
    def content(self) -> bytes:
        """What the first of the two headers holds, and the MAC covers."""
        return _U32.pack(self.window) + self.stream

    def to_headers(self) -> dict[str, str]:
        """The two headers of the upgrade request."""
        return {OPENING: encode_unpadded(self.content), OPENING_MAC: encode_unpadded(self.mac)}

    @classmethod
    def from_headers(cls, headers: Mapping[str, str]) -> OpeningHeaders | None:
        """Read the headers; names in any case. ``None`` if nothing of an opening is shown.

        Raises:
            MissingCredentialsError: If one is there without the other, given twice or malformed.
        """
        reader = _Reader(headers)
        if not (reader.has(OPENING) or reader.has(OPENING_MAC)):
            return None
        content = reader.data(OPENING)
        if not _U32.size <= len(content) <= _U32.size + MAX_SHOWN_BYTES:
            raise MissingCredentialsError(
                OPENING,
                f"holds {len(content)} bytes, and not {_U32.size} to {_U32.size + MAX_SHOWN_BYTES}",
            )
        window: int = _U32.unpack_from(content)[0]
        return cls(window, content[_U32.size :], reader.secret(OPENING_MAC))


class RelayHeaders(Record):
    """What a relay shows when it claims its session (docs/protocol.md section 3.4).

    Attributes:
        session: Session id, 64 lower-case hexadecimal digits.
        relay_token: Of its launch, 52 bytes, which it need not understand.
        instance: 32 lower-case hexadecimal digits, drawn afresh by each invocation.
        epoch: Which attempt to connect this is, 1 at the first.
    """

    session: str
    relay_token: bytes = hidden()
    instance: str
    epoch: int

    def to_headers(self) -> dict[str, str]:
        """The four headers of the upgrade request."""
        return {
            SESSION: self.session,
            RELAY_TOKEN: encode_unpadded(self.relay_token),
            INSTANCE: self.instance,
            EPOCH: str(self.epoch),
        }

    @classmethod
    def from_headers(cls, headers: Mapping[str, str]) -> RelayHeaders:
        """Read the headers; names in any case.

        Raises:
            MissingCredentialsError: If one is absent, given twice or malformed.
        """
        reader = _Reader(headers)
        return cls(
            reader.hexadecimal(SESSION, 64),
            reader.secret(RELAY_TOKEN, RELAY_TOKEN_LENGTH),
            reader.hexadecimal(INSTANCE, 32),
            reader.number(EPOCH, least=1),
        )


class ResumeHeaders(Record):
    """What a dialer shows, beside a MAC, when it takes up its session again.

    Attributes:
        session: Session id, 64 lower-case hexadecimal digits.
        resume_token: The 32 bytes that OPENED brought.
        epoch: Which attempt to connect this is; the opening's was 1.
    """

    session: str
    resume_token: bytes = hidden()
    epoch: int

    def to_headers(self) -> dict[str, str]:
        """The three headers of the upgrade request."""
        return {
            SESSION: self.session,
            RESUME_TOKEN: encode_unpadded(self.resume_token),
            EPOCH: str(self.epoch),
        }

    @classmethod
    def from_headers(cls, headers: Mapping[str, str]) -> ResumeHeaders:
        """Read the headers; names in any case.

        Raises:
            MissingCredentialsError: If one is absent, given twice or malformed.
        """
        reader = _Reader(headers)
        return cls(
            reader.hexadecimal(SESSION, 64),
            reader.secret(RESUME_TOKEN),
            reader.number(EPOCH, least=1),
        )
