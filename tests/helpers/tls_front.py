"""TLS in front of a server that has none: the embedded PostgreSQL is built without it.

Speaks the server's side of PostgreSQL's SSLRequest ("Message Formats", SSLRequest: length 8, code 80877103;
the answer is one byte, ``S``), then TLS, then copies bytes to the real server. So the client's side is all
real: libpq's request, the handshake and the encrypted session run through the tunnel.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl

from tests.helpers.patience import HANG
from tests.helpers.servers import Service

#: Int32(8) Int32(80877103). Source: PostgreSQL documentation, "Message Formats".
SSL_REQUEST = bytes.fromhex("00 00 00 08 04 d2 16 2f")


def read_exactly(connection: socket.socket, size: int) -> bytes:
    """``size`` bytes, or fewer at the end of the stream."""
    got = b""
    while len(got) < size and (data := connection.recv(size - len(got))):
        got += data
    return got


def pass_on(front: socket.socket, back: socket.socket) -> None:
    """Copy both ways until either side ends. ``front`` may hold decrypted bytes that select does not see."""
    while True:
        pending = front.pending() if isinstance(front, ssl.SSLSocket) else 0
        ready = [front] if pending else select.select([front, back], [], [])[0]
        for source, sink in ((front, back), (back, front)):
            if source in ready:
                data = source.recv(65_536)
                if not data:
                    return
                sink.sendall(data)


def postgres_over_tls(
    server: tuple[str, int], context: ssl.SSLContext, *, slow_to_exit: bool = False
) -> Service:
    """A service that adds TLS to the PostgreSQL at ``server``; clients that want none are passed on.

    Args:
        server: Where it is.
        context: The server's side of TLS.
        slow_to_exit: When the server ends, close only once more has come, and do not read it. A backend of
            PostgreSQL exits at libpq's last message, and behind that comes TLS's: if it is there by then, the
            kernel resets the connection.
    """

    def serve(connection: socket.socket) -> None:
        first = read_exactly(connection, len(SSL_REQUEST))
        with socket.create_connection(server) as back:
            if first != SSL_REQUEST:  # a cancel request has the same length, and comes in the clear
                back.sendall(first)
                pass_on(connection, back)
                return
            connection.sendall(b"S")
            with (
                contextlib.suppress(ssl.SSLError),
                context.wrap_socket(connection, server_side=True, suppress_ragged_eofs=True) as secure,
            ):
                pass_on(secure, back)
                secure.setblocking(False)
                with contextlib.suppress(OSError):  # it says goodbye, and waits for no answer
                    secure.unwrap()
                if slow_to_exit:
                    select.select([secure], [], [], HANG)

    return serve
