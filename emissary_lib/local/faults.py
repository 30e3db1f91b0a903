"""Seeded faults: what the local cloud's network does to messages on purpose.

One decision point per hop. A hop asks its :class:`DecisionStream` once per message and does what the
:class:`Decision` says. A fault is a row here: a probability in :class:`Faults`, a field in
:class:`Decision`, one line in :meth:`DecisionStream.next`, and the code at the hop that carries it out.

Every (site, connection, fault) has a random stream of its own, so that the same seed gives the same
decisions whatever runs beside it, and a fault added later does not shift the ones already there.
"""

from __future__ import annotations

import asyncio
import enum
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from emissary_lib.protocol.errors import ConfigError

#: At most this many later messages overtake one that is held back.
MAX_OVERTAKERS: Final = 3

#: Longest time a message is held back, in seconds: on a quiet connection nothing comes to overtake it.
HOLD_SECONDS: Final = 0.02


class Site(enum.Enum):
    """A hop at which faults are decided."""

    #: A client's message on its way to the function of its route.
    MESSAGE_IN = "client->function"
    #: A message posted to ``@connections``, accepted, on its way to the client.
    POST_OUT = "function->client"


@dataclass(frozen=True, slots=True)
class Decision:
    """What happens to one message at one hop.

    Attributes:
        overtakers: How many later messages of the same hop pass before this one; 0: none.
    """

    overtakers: int = 0


@dataclass(frozen=True, slots=True)
class Faults:
    """Which faults to inject, and how often.

    Attributes:
        seed: Where all decisions come from.
        reorder: Probability, 0 to 1, that a message is overtaken by later ones on the same connection.
            It is held until one to ``MAX_OVERTAKERS`` have passed, or for ``HOLD_SECONDS``.

    Raises:
        ConfigError: If a probability is outside 0 to 1.
    """

    seed: int = 0
    reorder: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.reorder <= 1.0:
            raise ConfigError(f"Faults.reorder is a probability and must be from 0 to 1, not {self.reorder}")

    def stream(self, site: Site, instance: int) -> DecisionStream:
        """The decisions of one hop.

        Args:
            site: The hop.
            instance: Which of several like it; the gateway numbers its connections from 0 as they open.
        """
        return DecisionStream(self, site, instance)


class DecisionStream:
    """The decisions of one hop, in the order in which its messages come."""

    def __init__(self, faults: Faults, site: Site, instance: int) -> None:
        self._faults = faults
        self._reorder = random.Random(f"{faults.seed}/{site.value}/{instance}/reorder")

    def next(self) -> Decision:
        """Decide for the next message."""
        overtakers = 0
        # A fault that is off draws nothing: with no faults the hot path costs one comparison.
        if self._faults.reorder and self._reorder.random() < self._faults.reorder:
            overtakers = self._reorder.randint(1, MAX_OVERTAKERS)
        return Decision(overtakers)


class Hop:
    """Carries out a hop's decisions: passes messages on at once, or holds them back.

    Thread safety: none; use it from one event loop.
    """

    def __init__(self, stream: DecisionStream, loop: asyncio.AbstractEventLoop) -> None:
        self._stream = stream
        self._loop = loop
        self._held: deque[_Held] = deque()

    def send(self, deliver: Callable[[], None], delay: float = 0.0) -> None:
        """Deliver one message now or soon.

        Args:
            deliver: Called once, from the event loop, when the message arrives; before this method
                returns if nothing holds it back.
            delay: Seconds that the message travels before faults are decided.
        """
        if delay > 0.0:
            self._loop.call_later(delay, self._arrive, deliver)
        else:
            self._arrive(deliver)

    def _arrive(self, deliver: Callable[[], None]) -> None:
        overtakers = self._stream.next().overtakers
        if overtakers:
            held = _Held(deliver, overtakers)
            held.timer = self._loop.call_later(HOLD_SECONDS, self._release, held)
            self._held.append(held)
            return
        deliver()
        if self._held:
            self._passed()

    def _passed(self) -> None:
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
