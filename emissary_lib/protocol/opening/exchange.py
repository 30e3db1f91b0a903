"""The opening of a session: what the bridge answers, and how the dialer reads it.

The bridge's side is a function, :func:`evaluate`. Each of its invocations sees only the set of fragments
that have arrived so far, in no order, so the answer depends on that set and on nothing else. The dialer's
side is :class:`OpeningReader`. Source: docs/protocol.md sections 3.2 and 3.3.
"""

from __future__ import annotations

import enum
import hmac
from collections.abc import Iterable

from emissary_lib.protocol.auth.macs import (
    Key,
    KeyRing,
    ServerProofError,
    server_mac,
    socks_password,
    verify_server_mac,
    verify_socks_password,
)
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.constants import MAX_OPENING_BYTES, VERSION
from emissary_lib.protocol.errors import (
    AuthenticationError,
    LocalProtocolError,
    RemoteProtocolError,
    UnsupportedVersionError,
)
from emissary_lib.protocol.opening import socks5
from emissary_lib.protocol.opening.banner import SERVER_SOFTWARE, Banner, parse_banner
from emissary_lib.protocol.record import Record, hidden
from emissary_lib.protocol.targets.allow_list import SHARED_TARGET, AllowList, Target, TargetError

__all__ = [
    "OpeningAnswer",
    "OpeningReader",
    "OpeningState",
    "ServerProofError",
    "assemble",
    "evaluate",
    "opening_bytes",
    "within_limit",
]


class OpeningState(enum.Enum):
    """What the bridge does with an opening."""

    WAITING = "waiting"  #: More bytes are needed: post ``server_bytes``, if there are any.
    ACCEPTED = "accepted"  #: Launch; post nothing.
    REFUSED = "refused"  #: Post ``server_bytes``, again whenever asked again.
    GARBAGE = "garbage"  #: Answer RESET with ``code``.


class OpeningAnswer(Record):
    """The bridge's answer to the fragments it has.

    Attributes:
        state: What to do.
        server_bytes: The whole of the server's stream so far, from offset 0. When ACCEPTED it ends with the
            authentication status: the SOCKS5 reply is the relay's.
        client_offset: The ``ack``: contiguous bytes held from offset 0, but never past the end of CONNECT.
        early: When ACCEPTED, the contiguous bytes after CONNECT; else empty.
        target: What was asked for, once known and well formed.
        code: Why, when REFUSED or GARBAGE; else ``OK``.
        key_id: The key that signed the password, once it was verified.
    """

    state: OpeningState
    server_bytes: bytes = hidden()
    client_offset: int
    early: bytes = hidden()
    target: Target | None
    code: Code
    key_id: int | None


def opening_bytes(*, key: Key, date: str, nonce: bytes, target: Target) -> bytes:
    """The whole of the dialer's SOCKS5 stream: greeting, username and password, CONNECT.

    Args:
        key: The key of the upgrade.
        date: The upgrade's date.
        nonce: The upgrade's nonce.
        target: Where to.
    """
    password = socks_password(key, date=date, nonce=nonce)
    return socks5.greeting() + socks5.credentials(date, password) + socks5.connect(target)


def within_limit(offset: int, data: bytes) -> tuple[int, bytes] | None:
    """The part of a fragment that the bridge keeps; None if nothing of it is below ``MAX_OPENING_BYTES``."""
    kept = data[: max(0, MAX_OPENING_BYTES - offset)]
    return (offset, kept) if kept else None


def assemble(fragments: Iterable[tuple[int, bytes]]) -> bytes:
    """Put fragments together as far as they reach from offset 0 without a gap.

    Args:
        fragments: ``(offset, bytes)`` in any order; doubled and overlapping ones are trimmed.

    Returns:
        The contiguous bytes. Where fragments contradict each other, the one that begins first counts, and of
        those that begin together the one that sorts first: the result depends on the set alone.

    Example:
        >>> assemble([(3, b"def"), (0, b"abcd"), (9, b"z")])
        b'abcdef'
    """
    stream = bytearray()
    for offset, data in sorted(fragments):
        if offset > len(stream):
            break
        stream += data[len(stream) - offset :]
    return bytes(stream)


def evaluate(
    fragments: Iterable[tuple[int, bytes]],
    *,
    nonce: bytes,
    date: str,
    host: str,
    key_id: int,
    keys: KeyRing,
    allow: AllowList,
    server_version: str,
) -> OpeningAnswer:
    """Answer an opening: the table of docs/protocol.md section 3.2.

    Args:
        fragments: Everything the session's OPENING messages have brought, in any order. What is beyond
            ``MAX_OPENING_BYTES`` is left out of account.
        nonce: The session's nonce, as the upgrade showed it.
        date: The session's date, which the username must be.
        host: The session's host, for the banner's MAC.
        key_id: The key of the upgrade; the password must be of the same one.
        keys: The keys that are valid now.
        allow: The targets that may be dialled; not asked for a shared session (docs/protocol.md 11.1-2).
        server_version: The bridge's version, at most 100 bytes, for the banner.

    Returns:
        The answer; the same one for every order, cut and repetition of the same bytes. If the upgrade's key
        is no longer valid there is no banner to send: GARBAGE with ``AUTHENTICATION_FAILED``.
    """
    kept = (within_limit(offset, data) for offset, data in fragments)
    stream = assemble(fragment for fragment in kept if fragment is not None)
    negotiation = socks5.ServerNegotiation()
    negotiation.receive(stream)
    events: list[socks5.ServerEvent] = []
    garbage = False
    try:
        while (event := negotiation.next_event()) is not None:
            events.append(event)
    except RemoteProtocolError:
        garbage = True
    done = negotiation.state is socks5.ServerState.DONE
    upgrade_key = keys.get(key_id)
    if upgrade_key is None:
        return OpeningAnswer(OpeningState.GARBAGE, b"", 0, b"", None, Code.AUTHENTICATION_FAILED, None)
    judge = _Judge(upgrade_key, nonce, date, host, allow, server_version)
    for event in events:
        judge.hear(event)
    if judge.state is OpeningState.WAITING and garbage:
        judge.state, judge.code = OpeningState.GARBAGE, Code.PROTOCOL_ERROR
    return OpeningAnswer(
        judge.state,
        judge.server_bytes,
        negotiation.used if done else len(stream),
        negotiation.leftover if judge.state is OpeningState.ACCEPTED else b"",
        judge.target,
        judge.code,
        judge.key_id,
    )


class _Judge:
    """Hears the client's messages one by one; once it has decided it hears no more."""

    def __init__(
        self, upgrade_key: Key, nonce: bytes, date: str, host: str, allow: AllowList, server_version: str
    ) -> None:
        self._upgrade_key = upgrade_key
        self._nonce = nonce
        self._date = date
        self._host = host
        self._allow = allow
        self._server_version = server_version
        self.state = OpeningState.WAITING
        self.code = Code.OK
        self.server_bytes = b""
        self.target: Target | None = None
        self.key_id: int | None = None

    def hear(self, event: socks5.ServerEvent) -> None:
        if self.state is not OpeningState.WAITING:
            return
        if isinstance(event, socks5.Greeting):
            self._greet(event)
        elif isinstance(event, socks5.Credentials):
            self._authenticate(event)
        else:
            self._decide(event)

    def _greet(self, greeting: socks5.Greeting) -> None:
        mac = server_mac(self._upgrade_key, date=self._date, nonce=self._nonce, host=self._host)
        banner = Banner(SERVER_SOFTWARE, self._server_version, VERSION, self._nonce, mac)
        self.server_bytes = banner.encode()
        if socks5.Method.USERNAME_PASSWORD in greeting.methods:
            self.server_bytes += socks5.method_choice(socks5.Method.USERNAME_PASSWORD)
        else:
            self._refuse(Code.AUTHENTICATION_FAILED, socks5.method_choice(socks5.Method.NO_ACCEPTABLE))

    def _authenticate(self, credentials: socks5.Credentials) -> None:
        # Only the upgrade's key: another valid one proves nothing about who asked for the upgrade.
        try:
            verify_socks_password(
                credentials.password, KeyRing([self._upgrade_key]), date=self._date, nonce=self._nonce
            )
        except AuthenticationError:
            verified = False
        else:
            verified = hmac.compare_digest(credentials.username, self._date.encode("utf-8", "surrogatepass"))
        if verified:
            self.key_id = self._upgrade_key.key_id
            self.server_bytes += socks5.auth_status(True)
        else:
            self._refuse(Code.AUTHENTICATION_FAILED, socks5.auth_status(False))

    def _decide(self, request: socks5.Request) -> None:
        code = self._judge_request(request)
        if code is Code.OK:
            self.state = OpeningState.ACCEPTED
        else:
            self._refuse(code, socks5.reply(socks5.reply_for(code)))

    def _judge_request(self, request: socks5.Request) -> Code:
        if request.command != socks5.Command.CONNECT:
            return Code.COMMAND_NOT_SUPPORTED
        if request.address_type not in tuple(socks5.AddressType):
            return Code.ADDRESS_NOT_SUPPORTED
        if request.host is None:
            return Code.TARGET_NOT_ALLOWED
        try:
            self.target = Target(request.host, request.port)
        except TargetError:
            # No rule can name what is no host or no port.
            return Code.TARGET_NOT_ALLOWED
        return Code.OK if self._permits(self.target) else Code.TARGET_NOT_ALLOWED

    def _permits(self, target: Target) -> bool:
        if target.host == SHARED_TARGET.host:
            return target == SHARED_TARGET  # whatever the list says: it is for hosts, and this is none
        return self._allow.permits(target)

    def _refuse(self, code: Code, answer: bytes) -> None:
        self.state, self.code = OpeningState.REFUSED, code
        self.server_bytes += answer


class OpeningReader:
    """The dialer's side: reads the server's stream up to and including the SOCKS5 reply.

    It never holds more than 1 KiB, whatever the server sends.

    Args:
        key: The key of the upgrade.
        date: The upgrade's date.
        nonce: The upgrade's nonce.
        host: The API's host, from :func:`~emissary_lib.protocol.auth.macs.signed_host`.

    Thread safety:
        None; one owner.
    """

    def __init__(self, key: Key, date: str, nonce: bytes, host: str) -> None:
        self._key = key
        self._date = date
        self._nonce = nonce
        self._host = host
        self._buffer = b""
        self._banner: Banner | None = None
        self._negotiation = socks5.ClientNegotiation()

    @property
    def done(self) -> bool:
        """Whether the exchange is over, well or not."""
        return self._negotiation.state is socks5.ClientState.DONE

    @property
    def banner(self) -> Banner | None:
        """The server's banner, once it has proved itself. Until then no byte of the user's may be sent."""
        return self._banner

    @property
    def code(self) -> Code:
        """The outcome; ``AUTHENTICATION_FAILED`` if the server takes neither method nor password.

        Raises:
            LocalProtocolError: If the exchange is not done.
        """
        if self._negotiation.code is None:
            raise LocalProtocolError("the opening has no outcome before it is done")
        return self._negotiation.code

    @property
    def reply(self) -> socks5.ReplyCode | None:
        """The SOCKS5 reply's code; None before there is one, and after a failed authentication."""
        return self._negotiation.reply

    def receive(self, data: bytes) -> bytes:
        """Take the next bytes of the server's stream, in order, cut in any way.

        Returns:
            What follows the SOCKS5 reply: bytes for the user. Empty until ``done``.

        Raises:
            RemoteProtocolError: If the bytes are no banner, or no SOCKS5.
            UnsupportedVersionError: If the server speaks another version of the protocol.
            ServerProofError: If nonce or MAC in the banner are wrong.

        State:
            After an error the session is lost; do not feed it again.
        """
        if self._banner is None:
            self._buffer += data
            found = parse_banner(self._buffer)
            if found is None:
                return b""
            banner, used = found
            self._check(banner)
            self._banner = banner
            data, self._buffer = self._buffer[used:], b""
        return data[self._negotiation.receive(data) :]

    def _check(self, banner: Banner) -> None:
        if banner.protocol_version != VERSION:
            raise UnsupportedVersionError(
                f"the server speaks version {banner.protocol_version} of the protocol, this side "
                f"{VERSION}; use a dialer and a bridge of the same release"
            )
        if not hmac.compare_digest(banner.nonce, self._nonce):
            raise ServerProofError(f"the server at {self._host!r} answers another session's nonce")
        verify_server_mac(banner.server_mac, self._key, date=self._date, nonce=self._nonce, host=self._host)
