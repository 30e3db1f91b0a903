"""HTTP/1.1 connections to one host that are kept for the next request.

A Lambda environment is frozen between invocations, for seconds or hours, and a kept connection can die
meanwhile without anybody noticing. So a connection that has become readable (closed, or speaking out of turn)
or old is dropped before use, and a request whose kept connection turns out to be dead is repeated once on a
fresh one. It may then arrive twice; docs/protocol.md section 1 allows any message to, and a request to one of
AWS's services is repeated for other reasons too.
"""

from __future__ import annotations

import http.client
import select
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

#: Longest time to set up a connection, in seconds: some round trips, and room for one lost packet.
CONNECT_TIMEOUT: Final = 2.0

#: A connection that was idle for this long, in seconds, is not used again: NAT gateways and VPC endpoints
#: forget a flow after 350 s without a word, and a post into the void costs a whole timeout.
MAX_IDLE: Final = 60.0

#: Idle connections kept, at most; more than the relay's parallel posts.
_MOST_KEPT: Final = 64


#: As ``socket.create_connection``: address and timeout.
Connect = Callable[[tuple[str, int], float], socket.socket]


class Reply(NamedTuple):
    """An answer, read to its end."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes


class _Kept(NamedTuple):
    connection: http.client.HTTPConnection
    since: float


class ConnectionPool:
    """A pool. Safe to use from several threads: each request has a connection of its own.

    Args:
        host: Host name or address.
        port: Port.
        tls: TLS settings, or None for plain HTTP.
        timeout: Longest wait for the answer, in seconds.
        connect: Makes the TCP connections.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        tls: ssl.SSLContext | None,
        timeout: float,
        connect: Connect = socket.create_connection,
    ) -> None:
        self._host = host
        self._port = port
        self._tls = tls
        self._timeout = timeout
        self._connect = connect
        # The most recently used is used first, so that the others grow old. A deque's ends are atomic.
        self._idle: deque[_Kept] = deque(maxlen=_MOST_KEPT)

    def request(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """Send one request and read its answer.

        Raises:
            OSError: No connection, or no answer in time (TimeoutError).
            http.client.HTTPException: Not an HTTP answer.
        """
        kept = self._take()
        if kept is not None:
            try:
                return self._exchange(kept, method, path, body, headers)
            except TimeoutError:
                raise
            except (OSError, http.client.HTTPException):
                pass  # died in the freeze
        return self._exchange(self._fresh(), method, path, body, headers)

    def close(self) -> None:
        """Close the idle connections. Idempotent; a later request makes new ones."""
        while True:
            try:
                self._idle.pop().connection.close()
            except IndexError:
                return

    def _take(self) -> http.client.HTTPConnection | None:
        while True:
            try:
                connection, since = self._idle.pop()
            except IndexError:
                return None
            if time.monotonic() - since < MAX_IDLE and not _readable(connection):
                return connection
            connection.close()

    def _fresh(self) -> http.client.HTTPConnection:
        sock = self._connect((self._host, self._port), CONNECT_TIMEOUT)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                sock = self._tls.wrap_socket(sock, server_hostname=self._host)
            sock.settimeout(self._timeout)
        except BaseException:
            sock.close()
            raise
        connection: http.client.HTTPConnection
        if self._tls is None:
            connection = http.client.HTTPConnection(self._host, self._port)
        else:
            connection = http.client.HTTPSConnection(self._host, self._port, context=self._tls)
        connection.sock = sock
        return connection

    def _exchange(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: bytes,
        headers: Mapping[str, str],
    ) -> Reply:
        try:
            connection.request(method, path, body, dict(headers))
            response = connection.getresponse()
            answer = response.read()
        except BaseException:
            connection.close()
            raise
        if response.will_close:
            connection.close()
        else:
            if len(self._idle) == _MOST_KEPT:
                self._drop_oldest()
            self._idle.append(_Kept(connection, time.monotonic()))
        return Reply(response.status, response.headers, answer)

    def _drop_oldest(self) -> None:
        try:
            self._idle.popleft().connection.close()
        except IndexError:
            pass


def _readable(connection: http.client.HTTPConnection) -> bool:
    poll = select.poll()
    poll.register(connection.sock, select.POLLIN | select.POLLHUP | select.POLLERR)
    return bool(poll.poll(0))
