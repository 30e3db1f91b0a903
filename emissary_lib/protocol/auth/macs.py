"""Who may come in, and who answers: every MAC of docs/protocol.md section 7, made and checked.

The one entry for authentication: the parts in :mod:`~emissary_lib.protocol.auth.keys`,
:mod:`~emissary_lib.protocol.auth.headers`, :mod:`~emissary_lib.protocol.auth.httpdate` and
:mod:`~emissary_lib.protocol.wire.base64` can all be imported from here. Clock and chance are arguments.
Functions are pure, hence safe in any thread. No error text holds a key, a MAC, a nonce or a token.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from typing import Final

from emissary_lib.protocol.auth.headers import (
    RELAY_TOKEN_RANDOM,
    ConnectHeaders,
    MissingCredentialsError,
    OpeningHeaders,
    RelayHeaders,
    ResumeHeaders,
)
from emissary_lib.protocol.auth.httpdate import http_date, parse_http_date
from emissary_lib.protocol.auth.keys import Key, KeyRing, format_keys, parse_keys
from emissary_lib.protocol.constants import CLOCK_SKEW
from emissary_lib.protocol.errors import AuthenticationError, LocalProtocolError
from emissary_lib.protocol.wire.base64 import EncodingError, decode_unpadded, encode_unpadded

__all__ = [
    "ClockSkewError",
    "ConnectHeaders",
    "EncodingError",
    "Key",
    "KeyRing",
    "MissingCredentialsError",
    "OpeningHeaders",
    "RelayHeaders",
    "ResumeHeaders",
    "ServerProofError",
    "WrongHostError",
    "decode_unpadded",
    "encode_unpadded",
    "format_keys",
    "http_date",
    "parse_http_date",
    "parse_keys",
    "relay_token",
    "relay_token_key_id",
    "resume_mac",
    "server_mac",
    "session_id",
    "sign_connect",
    "sign_opening",
    "signed_host",
    "socks_password",
    "token_hash",
    "verify_connect",
    "verify_opening",
    "verify_relay_token",
    "verify_resume_mac",
    "verify_server_mac",
    "verify_socks_password",
]

_DOOR: Final = b"emissary.v2 door"
_SERVER: Final = b"emissary.v2 server"
_OPENING: Final = b"emissary.v2 opening"
_RESUME: Final = b"emissary.v2 resume"
_RELAY: Final = b"emissary.v2 relay"

_FIELD_MAX: Final = 0xFFFF


class ClockSkewError(AuthenticationError):
    """Key and MAC are right; only the dialer's date is too far from the server's clock.

    Attributes:
        skew: The dialer's clock minus the server's, in seconds.
    """

    def __init__(self, skew: float) -> None:
        way = "ahead of" if skew > 0 else "behind"
        super().__init__(
            f"the dialer's clock is {abs(skew):.0f} s {way} the server's, at most {CLOCK_SKEW:.0f} s is "
            "accepted; set the dialer's clock"
        )
        self.skew = skew


class WrongHostError(AuthenticationError):
    """Key and MAC are right, but the MAC was made for another host than this API's."""


class ServerProofError(AuthenticationError):
    """The server did not prove that it knows the key: it is not the bridge, or has another key."""


def signed_host(authority: str) -> str:
    """Bring a ``Host`` to the form that the MACs cover.

    Args:
        authority: The header's value: ``name``, ``name:port``, ``[v6]`` or ``[v6]:port``.

    Returns:
        Lower case, without a port. Nothing else is changed.

    Source:
        docs/protocol.md section 7.2.

    Example:
        >>> signed_host("API.Example.COM:8443")
        'api.example.com'
    """
    text = authority.strip(" \t").lower()
    name, colon, port = text.rpartition(":")
    # What has more colons is no name and port, but an address without its brackets.
    is_port = colon and (":" not in name or name.endswith("]")) and port.strip("0123456789") == ""
    return name if is_port else text


def session_id(nonce: bytes) -> str:
    """The session's id: lower-case hexadecimal SHA-256 of its nonce (docs/protocol.md section 3.1)."""
    return hashlib.sha256(nonce).hexdigest()


def token_hash(token: bytes) -> str:
    """The form in which a token is stored: lower-case hexadecimal SHA-256."""
    return hashlib.sha256(token).hexdigest()


def _mac(key: Key, label: bytes, *fields: bytes) -> bytes:
    mac = hmac.new(key.secret, digestmod=hashlib.sha256)
    for part in (label, *fields):
        if len(part) > _FIELD_MAX:
            raise LocalProtocolError(f"a MAC's field has {len(part)} bytes; at most {_FIELD_MAX} fit")
        mac.update(struct.pack(">H", len(part)))
        mac.update(part)
    return mac.digest()


def _common(key: Key, date: str, nonce: bytes, host: str) -> tuple[bytes, bytes, bytes, bytes]:
    # surrogatepass: a header that was not UTF-8 must give a wrong MAC, not a UnicodeError.
    return (
        struct.pack(">I", key.key_id),
        date.encode("utf-8", "surrogatepass"),
        nonce,
        host.encode("utf-8", "surrogatepass"),
    )


def sign_connect(key: Key, *, date: str, nonce: bytes, host: str) -> ConnectHeaders:
    """Sign the dialer's upgrade request.

    Args:
        key: The shared key.
        date: :func:`http_date` of now.
        nonce: 32 fresh random bytes; never used twice.
        host: From :func:`signed_host`.
    """
    mac = _mac(key, _DOOR, *_common(key, date, nonce, host))
    return ConnectHeaders(key.key_id, date, nonce, mac, host)


def verify_connect(headers: ConnectHeaders, keys: KeyRing, *, host: str, unix_now: float) -> Key:
    """Check what a dialer showed with its upgrade. That the nonce is fresh is for the caller to see to.

    Args:
        headers: From :meth:`ConnectHeaders.from_headers`.
        keys: The valid keys.
        host: The API's own host, from :func:`signed_host`.
        unix_now: Wall clock, in seconds since 1970-01-01 UTC.

    Returns:
        The key that signed.

    Raises:
        AuthenticationError: For an unknown key id or a wrong MAC.
        WrongHostError: If the MAC is right for the host that the headers show.
        ClockSkewError: If everything is right but the date.
    """
    key = keys.get(headers.key_id)
    if key is None:
        raise AuthenticationError(f"key id {headers.key_id} is not known here")

    def is_right(host: str) -> bool:
        expected = sign_connect(key, date=headers.date, nonce=headers.nonce, host=host).mac
        return hmac.compare_digest(expected, headers.mac)

    if not is_right(host):
        if headers.host and is_right(headers.host):
            raise WrongHostError(
                f"the upgrade was signed for {headers.host!r}, and this API is {host!r}: its URL has another "
                "host, or something on the way rewrites Host"
            )
        raise AuthenticationError(
            f"wrong MAC on the upgrade for key id {headers.key_id}: "
            f"made with another secret, or for another host than {host!r}"
        )
    skew = parse_http_date(headers.date) - unix_now
    # "not <=": a NaN must not get in.
    if not abs(skew) <= CLOCK_SKEW:
        raise ClockSkewError(skew)
    return key


def sign_opening(
    key: Key, *, date: str, nonce: bytes, host: str, window: int, stream: bytes
) -> OpeningHeaders:
    """Sign what a dialer shows of its opening with its upgrade (docs/protocol.md section 3.7).

    Args:
        key: The key of the upgrade.
        date: The upgrade's date.
        nonce: The upgrade's nonce.
        host: From :func:`signed_host`.
        window: The dialer's window, in bytes, 0 to 4294967295.
        stream: The first bytes of the dialer's stream.
    """
    shown = OpeningHeaders(window, stream, b"")
    mac = _mac(key, _OPENING, *_common(key, date, nonce, host), shown.content)
    return OpeningHeaders(window, stream, mac)


def verify_opening(shown: OpeningHeaders, key: Key, *, date: str, nonce: bytes, host: str) -> None:
    """Check that the holder of the upgrade's key shows this opening, with this very upgrade.

    Args:
        shown: From :meth:`OpeningHeaders.from_headers`.
        key: The key of the upgrade, which was verified.
        date: The upgrade's date.
        nonce: The upgrade's nonce.
        host: The API's own host, from :func:`signed_host`.

    Raises:
        AuthenticationError: If the MAC is wrong.
    """
    expected = sign_opening(
        key, date=date, nonce=nonce, host=host, window=shown.window, stream=shown.stream
    ).mac
    if not hmac.compare_digest(expected, shown.mac):
        raise AuthenticationError(f"wrong MAC on the opening of an upgrade for key id {key.key_id}")


def server_mac(key: Key, *, date: str, nonce: bytes, host: str) -> bytes:
    """The bridge's proof that it knows the key; field 5 of the banner. 32 bytes."""
    return _mac(key, _SERVER, *_common(key, date, nonce, host))


def verify_server_mac(mac: bytes, key: Key, *, date: str, nonce: bytes, host: str) -> None:
    """Check the bridge's proof.

    Raises:
        ServerProofError: If it is wrong. Then send nothing of the user's.
    """
    if not hmac.compare_digest(server_mac(key, date=date, nonce=nonce, host=host), mac):
        raise ServerProofError(
            f"the server at {host!r} did not prove that it knows key id {key.key_id}; nothing was sent to it"
        )


def resume_mac(key: Key, *, date: str, nonce: bytes, host: str, session: str, epoch: int) -> bytes:
    """The dialer's proof on a resume. 32 bytes.

    Args:
        key: The key of the session's upgrade.
        date: :func:`http_date` of now.
        nonce: 32 fresh random bytes.
        host: From :func:`signed_host`.
        session: Session id.
        epoch: Which attempt to connect this is, 1 to 4294967295.

    Raises:
        LocalProtocolError: If ``epoch`` does not fit a u32.
    """
    if not 0 <= epoch <= 0xFFFF_FFFF:
        raise LocalProtocolError(f"epoch {epoch} does not fit the 32 bits it has in a MAC")
    fields = _common(key, date, nonce, host)
    return _mac(key, _RESUME, *fields, session.encode("utf-8", "surrogatepass"), struct.pack(">I", epoch))


def verify_resume_mac(
    mac: bytes, key: Key, *, date: str, nonce: bytes, host: str, session: str, epoch: int
) -> None:
    """Check the dialer's proof on a resume. Date and epoch themselves are for the caller to judge.

    Raises:
        AuthenticationError: If it is wrong.
    """
    expected = resume_mac(key, date=date, nonce=nonce, host=host, session=session, epoch=epoch)
    if not hmac.compare_digest(expected, mac):
        raise AuthenticationError(f"wrong MAC on a resume for key id {key.key_id}")


def relay_token(key: Key, *, session: str, random: bytes) -> bytes:
    """What a relay claims with: key id, random part and MAC, 52 bytes.

    Args:
        key: The key of the session's upgrade.
        session: Session id.
        random: 16 fresh random bytes.

    Source:
        docs/protocol.md section 7.3.
    """
    key_id = struct.pack(">I", key.key_id)
    mac = _mac(key, _RELAY, key_id, session.encode("utf-8", "surrogatepass"), random)
    return key_id + random + mac


def relay_token_key_id(token: bytes) -> int:
    """The id of the key that a relay token says it was made with."""
    return int.from_bytes(token[:4], "big")


def verify_relay_token(token: bytes, keys: KeyRing, *, session: str) -> None:
    """Check that a bridge with a valid key made this token for this session.

    Whether it is that of a launch, only the stored session can tell: who holds a key can make tokens too.

    Args:
        token: From :meth:`RelayHeaders.from_headers`.
        keys: The valid keys.
        session: Session id.

    Raises:
        AuthenticationError: For an unknown key id or a wrong MAC.
    """
    key_id = relay_token_key_id(token)
    key = keys.get(key_id)
    if key is None:
        raise AuthenticationError(f"the relay token is of key id {key_id}, which is not known here")
    expected = relay_token(key, session=session, random=token[4 : 4 + RELAY_TOKEN_RANDOM])
    if not hmac.compare_digest(expected, token):
        raise AuthenticationError(f"wrong MAC in the relay token for key id {key_id}")


def socks_password(key: Key, *, date: str, nonce: bytes) -> str:
    """The SOCKS5 password, in the original Emissary's form: 48 characters, ASCII.

    Source:
        docs/protocol.md section 7.1.
    """
    content = date.encode("utf-8", "surrogatepass") + b"\0" + encode_unpadded(nonce).encode("ascii")
    mac = hmac.new(key.secret, content, hashlib.sha256).digest()
    return encode_unpadded(struct.pack(">I", key.key_id) + mac)


def verify_socks_password(password: str | bytes, keys: KeyRing, *, date: str, nonce: bytes) -> Key:
    """Check a SOCKS5 password. How old ``date`` is was checked at the upgrade.

    Args:
        password: As it came off the wire.
        keys: The valid keys.
        date: The session's date, which the username must have been.
        nonce: The session's nonce.

    Returns:
        The key that made it.

    Raises:
        AuthenticationError: If it is malformed, of an unknown key, or wrong.
    """
    try:
        text = password.decode("ascii") if isinstance(password, bytes) else password
        data = decode_unpadded(text)
    except (UnicodeDecodeError, EncodingError):
        raise AuthenticationError("the SOCKS5 password is not unpadded base64") from None
    if len(data) != 4 + hashlib.sha256().digest_size:
        raise AuthenticationError(f"the SOCKS5 password holds {len(data)} bytes instead of 36")
    key_id = int.from_bytes(data[:4], "big")
    key = keys.get(key_id)
    if key is None:
        raise AuthenticationError(f"the SOCKS5 password is of key id {key_id}, which is not known here")
    if not hmac.compare_digest(
        socks_password(key, date=date, nonce=nonce).encode("ascii"), text.encode("ascii")
    ):
        raise AuthenticationError(f"wrong SOCKS5 password for key id {key_id}")
    return key
