"""Who is told how far a dial has come, and waits with it."""

from __future__ import annotations

import threading
import time
from typing import Literal

from emissary_lib.transport.deadline import Deadline

#: What a dial waits for: a local connection; the gateway's name and TCP, or a proxy's way there; TLS, and the
#: answer to the upgrade; the next attempt; behind that answer, the relay with its target, of which nothing is
#: heard in between; the target alone, where the relay is there already; and, with the original Emissary, its
#: banner, and then its target.
Step = Literal[
    "loopback", "name", "TCP", "proxy", "TLS", "upgrade", "pause", "relay", "target", "banner", "server"
]


class Watch:
    """Whoever makes a connection waits by these methods; this class only waits.

    Thread safety: :meth:`enter` from any thread; the others from the thread that dials.
    """

    def begin_attempt(self) -> None:
        """The gateway is asked, for the first time or again."""

    def enter(self, step: Step) -> None:
        """From now on this is waited for."""

    def look(self, seconds: float | None) -> float | None:
        """Whoever is about to wait for so many seconds (``None``: no end) asks this how long it may."""
        return seconds

    def wait(self, event: threading.Event, deadline: Deadline) -> None:
        """Wait until ``event`` is set, at most until the deadline."""
        deadline.wait(event)

    def pause(self, seconds: float, deadline: Deadline) -> None:
        """Wait before the next attempt, at most until the deadline."""
        time.sleep(seconds)
