"""How many messages may be in flight (docs/protocol.md sections 4.5 and 4.6)."""

from __future__ import annotations

from typing import Protocol

from emissary_lib.protocol.constants import ERROR_PAUSE, SHORTER


class CongestionWindow:
    """One session's cap on messages in flight: grows while acknowledgements return, halves on loss.

    Args:
        start: The cap to begin with, in messages.
        most: The cap never grows beyond this.
    """

    def __init__(self, start: int, most: int) -> None:
        self._cap = float(start)
        self._most = most
        self._slow_start = True  # until the first loss: one more per acknowledged message

    @property
    def cap(self) -> int:
        """Messages that may be in flight now; at least 1."""
        return int(self._cap)

    def on_ack(self, messages: int) -> None:
        """So many messages were newly acknowledged."""
        for _ in range(messages):
            self._cap = min(self._most, self._cap + (1 if self._slow_start else 1 / self._cap))

    def on_loss(self) -> None:
        """One loss event, however many messages it took."""
        self._slow_start = False
        self._cap = max(1.0, self._cap / 2)

    def on_short(self) -> None:
        """From now on messages are short: as many more of them may carry as much as long ones did."""
        self._most *= SHORTER
        self._slow_start = True

    def on_throttle(self) -> None:
        """The gateway said that it was too much."""
        self._slow_start = False
        self._cap = 1.0


class ErrorPause:
    """The pause after gateway errors: longer with each error that no acknowledgement interrupts."""

    def __init__(self) -> None:
        self.until: float | None = None
        self._next = ERROR_PAUSE[0]

    def error(self, now: float) -> bool:
        """One gateway error; whether it began a new pause (errors within a pause belong to it)."""
        if self.until is not None and now < self.until:
            return False
        self.until = now + self._next
        self._next = min(ERROR_PAUSE[1], self._next * 2)
        return True

    def on_ack(self) -> None:
        """Something got through: the next pause is short again."""
        self._next = ERROR_PAUSE[0]

    def active(self, now: float) -> bool:
        """Whether sending is paused; forgets a pause that is over."""
        if self.until is not None and now >= self.until:
            self.until = None
        return self.until is not None


class InFlightGate(Protocol):
    """A budget of messages in flight that several sessions share."""

    def acquire(self) -> bool:
        """Take one message's place; ``False`` if none is free now. The owner is told when one is."""

    def release(self, count: int) -> None:
        """Give back places."""


class OpenGate:
    """A gate without a limit: for a session that shares nothing."""

    def acquire(self) -> bool:
        """There is always room."""
        return True

    def release(self, count: int) -> None:
        """Nothing to count."""
