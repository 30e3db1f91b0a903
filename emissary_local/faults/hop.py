"""One connection's way for messages in one direction: what is decided about each, and doing it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from emissary_local.faults.engine import FaultEngine, Site

#: At most this many later messages overtake one that is held back.
MAX_OVERTAKERS: Final = 3

#: Longest time a message is held back, in seconds: on a quiet connection nothing comes to overtake it.
HOLD_SECONDS: Final = 0.02

#: Longest time between the two arrivals of a duplicated message, in seconds.
DUPLICATE_SECONDS: Final = 0.2


@dataclass(frozen=True, slots=True)
class Decision:
    """What happens to one message at one hop.

    Attributes:
        overtakers: How many later messages of the same hop pass before this one; 0: none.
        dropped: It never arrives; the rest is moot.
        again: Seconds after which it arrives a second time; 0.0: it does not.
        delay: Seconds that it takes longer.
    """

    overtakers: int = 0
    dropped: bool = False
    again: float = 0.0
    delay: float = 0.0


_NOTHING: Final = Decision()


class DecisionStream:
    """The decisions of one hop, in the order in which its messages come.

    Args:
        engine: Settings and counts.
        site: ``MESSAGE_IN`` or ``POST_OUT``.
        instance: The connection's number.
    """

    def __init__(self, engine: FaultEngine, site: Site, instance: int) -> None:
        self._engine = engine
        self._rng = engine.rng(site, instance)

    @property
    def quiet(self) -> bool:
        """Whether no decision can be anything but "pass it on"."""
        return self._engine.quiet

    def next(self) -> Decision:
        """Decide for the next message, and count what will happen to it."""
        if self.quiet:
            return _NOTHING
        rng, faults = self._rng, self._engine.faults
        if rng.triggers("drop"):
            return Decision(dropped=True)
        overtakers, again, delay = 0, 0.0, 0.0
        if rng.triggers("reorder"):
            overtakers = rng.stream("reorder").randint(1, MAX_OVERTAKERS)
        if rng.triggers("duplicate"):
            again = rng.up_to("duplicate", DUPLICATE_SECONDS)
        if rng.triggers("delay"):
            delay = rng.up_to("delay", faults.delay_seconds)
        return Decision(overtakers, False, again, delay)


class Hop:
    """Carries out a hop's decisions: passes messages on at once, holds them back, loses or doubles them.

    Thread safety: none; use it from one event loop.
    """

    def __init__(self, stream: DecisionStream, loop: asyncio.AbstractEventLoop) -> None:
        self._stream = stream
        self._loop = loop
        self._held: deque[_Held] = deque()

    def send(self, deliver: Callable[[], None], delay: float = 0.0) -> None:
        """Deliver one message now or soon, unless it is dropped.

        Args:
            deliver: Called from the event loop when the message arrives, twice if it is doubled; before this
                method returns if nothing holds it back.
            delay: Seconds that the message travels before faults are decided.
        """
        if delay > 0.0:
            self._loop.call_later(delay, self._arrive, deliver)
        else:
            self._arrive(deliver)

    def _arrive(self, deliver: Callable[[], None]) -> None:
        if self._stream.quiet:
            deliver()
            if self._held:
                self._count_overtaking()
            return
        decision = self._stream.next()
        if decision.dropped:
            return
        if decision.again:
            self._loop.call_later(decision.delay + decision.again, deliver)
        if decision.delay:
            self._loop.call_later(decision.delay, deliver)
            return
        if decision.overtakers:
            held = _Held(deliver, decision.overtakers)
            held.timer = self._loop.call_later(HOLD_SECONDS, self._release, held)
            self._held.append(held)
            return
        deliver()
        if self._held:
            self._count_overtaking()

    def _count_overtaking(self) -> None:
        for held in list(self._held):
            held.overtakers -= 1
            if held.overtakers <= 0:
                self._release(held)

    def _release(self, held: _Held) -> None:
        if held.timer is not None:
            held.timer.cancel()
        self._held.remove(held)
        held.deliver()


class _Held:
    __slots__ = ("deliver", "overtakers", "timer")

    def __init__(self, deliver: Callable[[], None], overtakers: int) -> None:
        self.deliver = deliver
        self.overtakers = overtakers
        self.timer: asyncio.TimerHandle | None = None
