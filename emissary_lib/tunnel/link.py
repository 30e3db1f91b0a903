"""What a tunnel needs of whatever carries its session's messages."""

from __future__ import annotations

from typing import Protocol

from emissary_lib.protocol.session.session import Outgoing
from emissary_lib.transport.deadline import Deadline


class Link(Protocol):
    """How a session's messages travel; safe to use from several threads."""

    def send(self, message: Outgoing) -> None:
        """Send one message, or take it over to send. Raises :class:`TransportError` if the link is broken."""

    def recv(self) -> str:
        """Wait for the next message. Raises :class:`TransportError` when the connection has ended."""

    def reconnect(self, epoch: int, deadline: Deadline) -> None:
        """Replace a connection that has ended.

        Raises:
            LinkRefusedError: The bridge will not have us back: definite; its ``code`` says why.
            TransportError, TimeoutError: It did not work this time.
        """

    def drop(self) -> None:
        """The connection is dead: end it without a word; wakes :meth:`recv`."""

    def close(self) -> None:
        """Say goodbye, for good; wakes :meth:`recv`. Idempotent."""

    def release(self) -> None:
        """Give back file descriptors and threads; called once, when nobody uses the link any more."""
