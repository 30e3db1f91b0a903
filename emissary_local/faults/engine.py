"""Decides when a fault happens, the same for the same seed, and counts what has happened.

Every (site, instance, kind) has a random stream of its own, so that the same seed gives the same decisions
whatever runs beside it, and a kind added later does not shift the ones already there.
"""

from __future__ import annotations

import enum
import random
import time
from collections import Counter
from collections.abc import Callable

from emissary_local.errors import SettingsError
from emissary_local.faults.settings import SHARES, Faults


class Site(enum.Enum):
    """A place at which faults are decided; in brackets, what its instances are."""

    #: A client's message on its way to the function of its route (connections).
    MESSAGE_IN = "client->function"
    #: A message posted to ``@connections``, accepted, on its way to the client (connections).
    POST_OUT = "function->client"
    #: The gateway's own steps for one connection (connections).
    GATEWAY = "gateway"
    #: Calls of ``@connections`` (connections).
    POST = "post"
    #: Invocations (functions).
    INVOCATION = "invocation"
    #: Calls of Lambda's Invoke (functions).
    INVOKE = "invoke"
    #: Calls of DynamoDB (one).
    DATABASE = "database"
    #: Frozen environments (functions).
    FREEZE = "freeze"
    #: What happens by itself from time to time (one for each kind).
    SCHEDULE = "schedule"


class FaultEngine:
    """The faults of one local cloud, at the moment.

    Thread safety: none; it belongs to the cloud process's event loop.

    Args:
        faults: What to do. Can be replaced while the cloud runs.
        clock: This machine's clock, seconds since 1970.
    """

    def __init__(self, faults: Faults | None = None, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._faults = faults or Faults()
        self._changed: list[Callable[[], None]] = []
        self.counts: Counter[str] = Counter()
        #: Goes up whenever the seed changes: random streams then begin anew.
        self.era = 0
        #: Whether nothing can happen to a message or call: the one thing that a hot path looks at.
        self.quiet = self._is_quiet()

    @property
    def faults(self) -> Faults:
        """The settings in force."""
        return self._faults

    def replace(self, faults: Faults) -> None:
        """Put other settings in force. Random streams run on, unless the seed is another one.

        Raises:
            SettingsError: If the clock would be shifted by another amount: running functions keep theirs.
        """
        before = self._faults
        if (faults.skew_seconds, faults.skew_spread) != (before.skew_seconds, before.skew_spread):
            raise SettingsError("the clock skew is fixed when the local cloud starts; give it to LocalCloud")
        if faults.seed != before.seed:
            self.era += 1
        self._faults = faults
        self.quiet = self._is_quiet()
        for changed in self._changed:
            changed()

    def on_change(self, changed: Callable[[], None]) -> None:
        """Call ``changed`` after every replacement."""
        self._changed.append(changed)

    def rng(self, site: Site, instance: int | str = 0) -> FaultRng:
        """The decisions of one place.

        Args:
            site: Where.
            instance: Which of several like it; the gateway numbers its connections from 0 as they come.
        """
        return FaultRng(self, site, instance)

    def count(self, kind: str, number: int = 1) -> None:
        """Something has happened."""
        if number:
            self.counts[kind] += number

    def now(self) -> float:
        """The cloud's clock, seconds since 1970: this machine's, shifted by ``skew_seconds``."""
        return self._clock() + self._faults.skew_seconds

    def touches(self, function: str) -> bool:
        """Whether faults of functions happen to this one."""
        return not self._faults.functions or function in self._faults.functions

    def _is_quiet(self) -> bool:
        return not any(getattr(self._faults, name) for name in SHARES)


class FaultRng:
    """The decisions of one place, in the order in which it asks.

    A kind that is off draws nothing, so switching one on does not change what the others do.
    """

    __slots__ = ("_engine", "_era", "_name", "_streams")

    def __init__(self, engine: FaultEngine, site: Site, instance: int | str) -> None:
        self._engine = engine
        self._name = f"{site.value}/{instance}"
        self._era = engine.era
        self._streams: dict[str, random.Random] = {}

    def triggers(self, kind: str) -> bool:
        """Whether the fault of this name (a share in :class:`Faults`) happens this time; counted if so."""
        if not self.draw(kind):
            return False
        self._engine.count(kind)
        return True

    def draw(self, kind: str) -> bool:
        """The same, not counted: for a caller who has yet to see whom it happens to."""
        if self._engine.quiet:
            return False
        share: float = getattr(self._engine.faults, kind)
        return bool(share) and self.stream(kind).random() < share

    def up_to(self, kind: str, seconds: float) -> float:
        """Draw a time for a fault that has struck, from more than 0 to ``seconds``."""
        return seconds * (1.0 - self.stream(kind).random())

    def coin(self, kind: str) -> bool:
        """Draw one of two ways for a fault that has struck."""
        return self.stream(kind).random() < 0.5

    def stream(self, kind: str) -> random.Random:
        """The random numbers of one kind at this place."""
        if self._era != self._engine.era:
            self._era = self._engine.era
            self._streams.clear()
        found = self._streams.get(kind)
        if found is None:
            seed = self._engine.faults.seed
            found = self._streams[kind] = random.Random(f"{seed}/{self._name}/{kind}")
        return found
