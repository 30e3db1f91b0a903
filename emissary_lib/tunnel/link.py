"""What a tunnel needs of whatever carries its session's messages."""

from __future__ import annotations

from typing import Protocol

from emissary_lib.protocol.session.session import Outgoing
from emissary_lib.transport.deadline import Deadline
from emissary_lib.transport.reconnecting import ReconnectingTransport


class Link(Protocol):
    """How a session's messages travel; safe to use from several threads."""

    def send(self, message: Outgoing) -> None:
        """Send one message, or take it over to send. Raises :class:`TransportError` if the link is broken."""

    def recv(self) -> bytes:
        """Wait for the next message. Raises :class:`TransportError` when the connection has ended."""

    def reconnect(self, epoch: int, deadline: Deadline) -> None:
        """Replace a connection that has ended.

        Raises:
            LinkRefusedError: The bridge will not have us back: definite, if it is ``certain``; its ``code``
                says why.
            TransportError, TimeoutError, LocalResourceError: It did not work this time.
        """

    def drop(self) -> None:
        """The connection is dead: end it without a word; wakes :meth:`recv`."""

    def close(self) -> None:
        """Say goodbye, for good; wakes :meth:`recv`. Idempotent."""

    def release(self) -> None:
        """Give back file descriptors and threads; called once, when nobody uses the link any more."""


class SocketLink:
    """A :class:`Link` over one WebSocket, which can be replaced: bridge and peer are both reached over it.

    Args:
        transport: The WebSocket.
    """

    def __init__(self, transport: ReconnectingTransport) -> None:
        self._transport = transport

    def send(self, message: Outgoing) -> None:
        """Send over the newest WebSocket, whomever the message is for."""
        self._transport.send(message.data)

    def recv(self) -> bytes:
        """Wait for the next message on the newest WebSocket."""
        return self._transport.recv(None)

    def reconnect(self, epoch: int, deadline: Deadline) -> None:
        """Replace the WebSocket; raises what :meth:`ReconnectingTransport.reconnect` does."""
        self._transport.reconnect(epoch, deadline)

    def drop(self) -> None:
        """End the WebSocket without a close frame; wakes :meth:`recv`."""
        self._transport.abort()

    def close(self) -> None:
        """Say goodbye, for good; also ends an attempt to reconnect that is under way."""
        self._transport.close()

    def release(self) -> None:
        """Give back the WebSocket's descriptor."""
        self._transport.release()
