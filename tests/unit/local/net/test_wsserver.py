"""The server's side of one WebSocket, over a transport that fails as sockets do."""

from __future__ import annotations

import asyncio
import errno
from typing import Any

from emissary_local.limits import Limits
from emissary_local.net.wsserver import ClientSocket

UPGRADE = (
    b"GET /emissary HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class ResetUnread(asyncio.Transport):
    """A connection that the client has reset while nothing was read from it: only the shutdown tells."""

    reading = True
    written = b""

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def writelines(self, list_of_data: Any) -> None:
        self.written += b"".join(list_of_data)

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

    def abort(self) -> None:
        pass


class Owner:
    def upgrade_requested(self, socket: ClientSocket, request: object) -> None:
        pass


def test_refusing_a_client_that_has_reset_goes_on_to_read_the_reset() -> None:
    async def refuse() -> ResetUnread:
        owner: Any = Owner()
        transport, socket = ResetUnread(), ClientSocket(owner, Limits(), lambda: 0.0)
        socket.begin(transport, UPGRADE, b"")
        assert not transport.reading
        socket.refuse(403, [], b"")
        return transport

    transport = asyncio.run(refuse())
    assert transport.written.startswith(b"HTTP/1.1 403 ")
    assert transport.reading
