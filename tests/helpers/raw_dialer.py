"""A dialer that is driven by hand: real upgrade, real WebSocket, and messages as the test makes them.

For what the real dialer never does: openings cut in pieces, pieces lost or doubled, a wrong date, a frame
that is not its own to send.
"""

from __future__ import annotations

import secrets
import time
from types import TracebackType

from emissary_lib.client.endpoint import Endpoint
from emissary_lib.protocol.auth.httpdate import http_date
from emissary_lib.protocol.auth.keys import Key
from emissary_lib.protocol.auth.macs import session_id, sign_connect, sign_opening
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.opening.exchange import opening_bytes
from emissary_lib.protocol.targets.allow_list import Target
from emissary_lib.protocol.wire.frames import Frame, FrameType, decode, encode
from emissary_lib.protocol.wire.payloads import End, Ended, Opened
from emissary_lib.transport.deadline import Deadline
from emissary_lib.transport.websocket import connect
from tests.helpers.patience import HANG

WINDOW = 65_536


class RawDialer:
    """One WebSocket that the gateway has let in; a context manager that closes it.

    Args:
        url: The gateway.
        key: The key to sign with.
        unix_now: The time to sign, in seconds since 1970 UTC; now if not given.
        shows: The target of an opening that the upgrade shows; none if not given.

    Raises:
        GatewayRefusedError: The gateway refused.

    Attributes:
        session: The session id.
        nonce: What it was opened with; secret.
        others: Messages that were not asked for, such as gateway errors, in order.
    """

    def __init__(
        self,
        url: str,
        key: Key,
        *,
        unix_now: float | None = None,
        shows: tuple[str, int] | None = None,
    ) -> None:
        endpoint = Endpoint(url)
        self._key = key
        self.nonce = secrets.token_bytes(32)
        self._date = http_date(time.time() if unix_now is None else unix_now)
        self.session = session_id(self.nonce)
        self.others: list[bytes] = []
        headers = sign_connect(key, date=self._date, nonce=self.nonce, host=endpoint.host).to_headers()
        if shows is not None:
            headers |= sign_opening(
                key,
                date=self._date,
                nonce=self.nonce,
                host=endpoint.host,
                window=WINDOW,
                stream=self.opening(shows),
            ).to_headers()
        self._transport = connect(endpoint.url, headers=headers, deadline=Deadline(HANG))

    def __enter__(self) -> RawDialer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._transport.close()
        self._transport.release()

    def opening(self, target: tuple[str, int], *, key: Key | None = None) -> bytes:
        """The whole SOCKS5 exchange of this side; ``key`` signs it instead of the upgrade's."""
        return opening_bytes(
            key=key or self._key, date=self._date, nonce=self.nonce, target=Target.parse(target)
        )

    def send(
        self,
        kind: FrameType,
        payload: bytes = b"",
        *,
        offset: int = 0,
        ack: int = 0,
        flags: int = 0,
        generation: int = 1,
    ) -> None:
        """Send one frame."""
        self._transport.send(encode(Frame(kind, flags, generation, WINDOW, offset, ack, payload)))

    def receive(self, *kinds: FrameType, timeout: float = HANG) -> Frame:
        """The next frame of one of these types; whatever else comes goes to :attr:`others`."""
        deadline = Deadline(timeout)
        while True:
            text = self._transport.recv(deadline.remaining())
            if not text.startswith(b"{"):
                frame = decode(text)
                if frame.type in kinds:
                    return frame
            self.others.append(text)

    def opened(self, timeout: float = HANG) -> tuple[Opened, bytes]:
        """Wait for OPENED; its parameters and stream bytes."""
        return Opened.decode(self.receive(FrameType.OPENED, timeout=timeout).payload)

    def end(self, code: Code = Code.DIALER_RESET, *, sent: int = 0, received: int = 0) -> Ended:
        """End the session; gives the bridge's answer."""
        self.send(FrameType.END, End(code, sent, received).encode())
        return Ended.decode(self.receive(FrameType.ENDED).payload)
