"""What a session's driver needs of a carrier of text messages."""

from __future__ import annotations

from typing import Protocol


class MessageTransport(Protocol):
    """One WebSocket, or something that behaves like it."""

    def send(self, message: bytes, timeout: float | None = None) -> None:
        """Send one text message, whose bytes are ASCII.

        Blocking: until the kernel has taken it, at most ``timeout`` seconds; ``None`` for the transport's own
        limit. Thread safety: may be called from several threads.

        Raises:
            TransportError: The link is broken, or did not take the message in time; nothing more can be sent.
        """

    def recv(self, timeout: float | None) -> bytes:
        """The next text message, as it came: nobody has looked at whether it is UTF-8.

        Blocking: at most ``timeout`` seconds, whatever else the other side sends meanwhile; ``None`` waits
        until a message or the end comes. What is there already may be given even if no time is left, so a
        loop looks at its own deadline. For one thread only.

        Raises:
            TimeoutError: No message in time; nothing is lost, call again.
            TransportError: The link is closed or broken.
        """

    def close(self) -> None:
        """Say goodbye and close; wakes a thread that waits in :meth:`recv`. Idempotent, does not block."""

    def release(self) -> None:
        """Give back what the transport holds; after this every call fails with a TransportError."""

    def abort(self) -> None:
        """Close without a word; wakes a thread that waits in :meth:`recv`. Idempotent, does not block."""
