"""The opening of a connection over the original's transport: banner, then SOCKS5, as the dialer reads them.

Source: docs/protocol.md section 12.2.
"""

from __future__ import annotations

import enum
from typing import Final

from emissary_lib.protocol.auth.keys import Key
from emissary_lib.protocol.auth.macs import socks_password
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.errors import LocalProtocolError, RemoteProtocolError, UnsupportedVersionError
from emissary_lib.protocol.opening.banner import MAX_BANNER, Banner, parse_message
from emissary_lib.protocol.opening.exchange import opening_bytes
from emissary_lib.protocol.opening.socks5 import ClientNegotiation, ClientState
from emissary_lib.protocol.opening.socks5_messages import ReplyCode, credentials, greeting
from emissary_lib.protocol.original.frames import Payload
from emissary_lib.protocol.session.states import follow
from emissary_lib.protocol.targets.allow_list import Target

#: What the original's server calls itself.
SERVER_SOFTWARE: Final = "emissary-server"

#: Its protocol: SOCKS5 behind the banner.
PROTOCOL_VERSION: Final = 1

_NONCE_BYTES: Final = 32


class OpeningState(enum.Enum):
    """Where an opening stands."""

    #: The server speaks first: its banner is awaited.
    BANNER = "banner"
    #: Our SOCKS5 bytes are out; its answers are awaited.
    ANSWERS = "answers"
    #: The target is connected: from here on the bytes are the user's.
    OPEN = "open"
    #: Refused, and the code says why.
    REFUSED = "refused"


class OpeningStep(enum.Enum):
    """What moves an opening on."""

    BANNER_READ = "banner read"
    SUCCEEDED = "reply 00"
    DECLINED = "key or target refused"


TRANSITIONS: Final[dict[tuple[OpeningState, OpeningStep], OpeningState]] = {
    (OpeningState.BANNER, OpeningStep.BANNER_READ): OpeningState.ANSWERS,
    (OpeningState.ANSWERS, OpeningStep.SUCCEEDED): OpeningState.OPEN,
    (OpeningState.ANSWERS, OpeningStep.DECLINED): OpeningState.REFUSED,
}


def step(state: OpeningState, what: OpeningStep) -> OpeningState:
    """The state after ``what`` happened in ``state``; raises as :func:`follow`."""
    return follow(TRANSITIONS, state, what)


class OriginalOpening:
    """The dialer's side of one opening.

    Args:
        key: To sign with.
        date: The date that is signed: an HTTP date of now.
        target: What to reach; ``None`` to ask no more than whether the key is accepted.

    Attributes:
        state: What is awaited.
        banner: What the server said of itself; ``None`` before.
        code: Why it was refused; ``OK`` otherwise.
        rest: What came behind the reply in the same piece: the target's bytes.

    Thread safety: none; one owner.
    """

    def __init__(self, key: Key, date: str, target: Target | None) -> None:
        self.state = OpeningState.BANNER
        self.banner: Banner | None = None
        self.code = Code.OK
        self.rest = b""
        self._key = key
        self._date = date
        self._target = target
        self._message = bytearray()
        self._socks = ClientNegotiation()
        self._out = b""

    def receive(self, payload: Payload) -> None:
        """Take what the server sent next.

        Raises:
            RemoteProtocolError: It is no banner of the original's, or no SOCKS5; its subclass
                UnsupportedVersionError: of another version. The opening is over.
        """
        if self.state is OpeningState.BANNER:
            self._read_banner(payload)
        elif self.state is OpeningState.ANSWERS:
            self.rest = payload.data[self._socks.receive(payload.data) :]
            self._look()
        else:
            raise LocalProtocolError(f"the opening is {self.state.value}: what comes is no part of it")

    @property
    def done(self) -> bool:
        """Whether it is over, well or not."""
        return self.accepted or self.refused

    @property
    def accepted(self) -> bool:
        """Whether the server has done what it was asked."""
        return self.state is OpeningState.OPEN

    @property
    def refused(self) -> bool:
        """Whether the server has said no."""
        return self.state is OpeningState.REFUSED

    def data_to_send(self) -> bytes:
        """What is to be sent now, for one message; empty for nothing. Given once."""
        out, self._out = self._out, b""
        return out

    def _read_banner(self, payload: Payload) -> None:
        self._message += payload.data
        if len(self._message) > MAX_BANNER:
            raise RemoteProtocolError(
                f"the server began with more than {MAX_BANNER} bytes, which is no banner of Emissary's; "
                "check the URL"
            )
        if not payload.ends:
            return
        self.banner = _checked(parse_message(bytes(self._message)))
        self._out = self._ask(self.banner.nonce)
        self.state = step(self.state, OpeningStep.BANNER_READ)

    def _ask(self, nonce: bytes) -> bytes:
        if self._target is not None:
            return opening_bytes(key=self._key, date=self._date, nonce=nonce, target=self._target)
        password = socks_password(self._key, date=self._date, nonce=nonce)
        return greeting() + credentials(self._date, password)

    def _look(self) -> None:
        code = self._socks.code
        if self._socks.reply is ReplyCode.HOST_UNREACHABLE:
            code = Code.TARGET_UNREACHABLE  # for a name that does not resolve, too
        if self._target is None and self._socks.state is ClientState.REPLY:
            code = Code.OK
        if code is not None:
            self.code = code
            succeeded = code is Code.OK
            self.state = step(self.state, OpeningStep.SUCCEEDED if succeeded else OpeningStep.DECLINED)


def _checked(banner: Banner) -> Banner:
    if banner.server_software != SERVER_SOFTWARE:
        raise RemoteProtocolError(
            f"the server calls itself {banner.server_software!r}, not {SERVER_SOFTWARE!r}; check the URL"
        )
    if banner.protocol_version != PROTOCOL_VERSION:
        raise UnsupportedVersionError(
            f"the server speaks version {banner.protocol_version} of the original Emissary's protocol; this "
            f"dialer speaks version {PROTOCOL_VERSION}"
        )
    if len(banner.nonce) != _NONCE_BYTES or not any(banner.nonce):
        raise RemoteProtocolError("the server's banner has no nonce of 32 random bytes")
    return banner
