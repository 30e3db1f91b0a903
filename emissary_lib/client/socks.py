"""A local SOCKS5 server: for programs that are told by servers which other servers to connect to."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from emissary_lib.client import drain
from emissary_lib.client.forward import Forward, Forwarded, ForwardedAddress
from emissary_lib.client.hang_up import ConnectedDeadline
from emissary_lib.client.listening import LocalAddress
from emissary_lib.client.socket import SessionInfo
from emissary_lib.exceptions import DialError, RemoteProtocolError, TunnelResetError
from emissary_lib.protocol.opening.local_socks import LocalSocks
from emissary_lib.protocol.opening.socks5_messages import ReplyCode, reply, reply_for
from emissary_lib.protocol.targets.allow_list import Target
from emissary_lib.system import never_sigpipe
from emissary_lib.transport.deadline import Deadline
from emissary_lib.tunnel.wakeup import Wakeup

#: Seconds that a client may take to say what it wants; it is a program of this machine.
HANDSHAKE_TIMEOUT: Final = 10.0

#: Seconds for which a client that was refused may go on writing before it is reset.
_LINGER: Final = 2.0


class Dialled(Protocol):
    """A session whose target is reached; see :class:`emissary_lib.client.dial.Dial`."""

    @property
    def info(self) -> SessionInfo:
        """What is known of it."""

    def attach(self, sock: socket.socket) -> drain.Drainable:
        """Tie it to a socket, which is owned from here on, also if it raises."""

    def run(self) -> TunnelResetError | None:
        """Carry bytes until the end; why it was cut off, if somebody has to be told."""


class SocksServer(Forward):
    """Like :class:`Forward`, but each client says where it wants to go: SOCKS5, CONNECT, no authentication.

    Names are not resolved here. A dial that fails is answered with the reply of docs/protocol.md section 8.

    Args:
        where: As of :class:`Forward`.
        dial: Reaches a target before a deadline; raises EmissaryError.
        owner: As of :class:`Forward`.
        timeout: Seconds that ``dial`` may take; ``None`` for no limit.
        handshake_timeout: Seconds that a client may take to say what it wants.
    """

    def __init__(
        self,
        where: LocalAddress,
        dial: Callable[[Target, Deadline], Dialled],
        *,
        owner: object = None,
        timeout: float | None = None,
        handshake_timeout: float = HANDSHAKE_TIMEOUT,
    ) -> None:
        patience = None if timeout is None else timeout + handshake_timeout
        super().__init__(where, self._converse, owner=owner, timeout=patience)
        self._dial = dial
        self._dial_timeout = timeout
        self._handshake_timeout = handshake_timeout
        self._changed = threading.Condition()
        self._negotiating = 0
        self._stopped: Wakeup | None = None

    def __enter__(self) -> ForwardedAddress:
        """As :meth:`Forward.__enter__`."""
        self._stopped = Wakeup()
        try:
            return super().__enter__()
        except BaseException:
            self._stopped.close()
            self._stopped = None
            raise

    def stop(self) -> None:
        """As :meth:`Forward.stop`; clients that have said nothing yet are let go."""
        super().stop()
        with self._changed:
            if self._stopped is None:
                return
            self._stopped.wake()
            self._changed.wait_for(lambda: not self._negotiating)
            self._stopped.close()
            self._stopped = None

    def _converse(self, sock: socket.socket, accepted: Forwarded) -> None:
        target = self._negotiate(sock, accepted.connection)
        if target is None:
            sock.close()
            return
        accepted.connection.target = str(target)
        accepted.deadline = ConnectedDeadline(self._dial_timeout, sock)
        dialled = self._dial(target, accepted.deadline)
        with contextlib.suppress(OSError):  # it has gone: the tunnel finds out
            sock.send(reply(ReplyCode.SUCCEEDED), never_sigpipe(sock))
        tunnel = dialled.attach(sock)  # from here on the target's bytes may come
        accepted.opened(dialled.info, tunnel)
        if error := dialled.run():
            raise error

    def _let_go(self, sock: socket.socket, accepted: Forwarded, error: Exception) -> None:
        drain.end(accepted.connection)  # nobody has to wait for the rest
        if accepted.session:
            super()._let_go(sock, accepted, error)
        else:  # a client that was refused has had its answer
            _dismiss(sock, _reply_to(error) if accepted.connection.target else b"")

    def _negotiate(self, sock: socket.socket, connection: drain.Connection) -> Target | None:
        """The target that the client wants; ``None`` if it never said anything.

        Raises:
            RemoteProtocolError: It was refused, and told so; or it stopped in the middle.
        """
        server, said = LocalSocks(), False
        with self._readable(sock) as wait:
            # By single bytes: what comes behind the request is for the target.
            while not server.decided and wait() and (data := _read_byte(sock)):
                said = True
                server.receive_data(data)
                sock.sendall(server.data_to_send(), never_sigpipe(sock))
            if server.target is None:
                drain.end(connection)  # before whoever stops us asks what is still under way
        if server.refusal:
            raise RemoteProtocolError(f"its client {server.refusal}")
        if said and server.target is None:
            raise RemoteProtocolError("its client stopped in the middle of the SOCKS5 handshake")
        return server.target

    @contextlib.contextmanager
    def _readable(self, sock: socket.socket) -> Iterator[Callable[[], bool]]:
        """Gives a function that waits until ``sock`` can be read; False if it cannot before the end.

        The end is that of the handshake's time, or that we stop; who has said something by then is heard.
        """
        deadline = Deadline(self._handshake_timeout)
        with self._changed:
            stopped = self._stopped
            self._negotiating += 1
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(sock, selectors.EVENT_READ)
                if stopped:
                    selector.register(stopped, selectors.EVENT_READ)

                def wait() -> bool:
                    ready = selector.select(deadline.remaining() if stopped else 0)
                    return any(key.fileobj is sock for key, _events in ready)

                yield wait
        finally:
            with self._changed:
                self._negotiating -= 1
                self._changed.notify_all()


def _read_byte(sock: socket.socket) -> bytes:
    """The next byte; empty if none will come, however the client has ended."""
    try:
        return sock.recv(1)
    except ConnectionError:
        return b""


def _reply_to(error: Exception) -> bytes:
    return reply(reply_for(error.code) if isinstance(error, DialError) else ReplyCode.GENERAL_FAILURE)


def _dismiss(sock: socket.socket, answer: bytes) -> None:
    """Send a last answer and close: not at once, for bytes left unread would make a reset of it.

    Blocking: until the client has closed, at most for ``_LINGER``.
    """
    deadline = Deadline(_LINGER)
    with sock, contextlib.suppress(OSError):
        sock.settimeout(_LINGER)
        sock.sendall(answer, never_sigpipe(sock))
        sock.shutdown(socket.SHUT_WR)
        while (left := deadline.remaining()) and sock.recv(65_536):
            sock.settimeout(left)
