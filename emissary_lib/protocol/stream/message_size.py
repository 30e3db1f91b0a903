"""How long a message may be, found out by what becomes of long ones (docs/protocol.md section 4.8)."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Final


class SizeState(enum.Enum):
    """What is known of messages of more than one fragment."""

    #: They pass, or nothing speaks against it.
    LONG = "long"
    #: One was lost again and again: short ones show whether it is their length.
    DOUBTFUL = "doubtful"
    #: Short ones pass: one long message at a time is the proof.
    PROVING = "proving"
    #: They do not pass, for the rest of the session.
    SHORT = "short"


class SizeStep(enum.Enum):
    """What moves on what is known."""

    LOST = "a long message lost"
    SHORT_PASSED = "a short message acknowledged"
    LONG_PASSED = "a long message acknowledged"
    PROOF_LOST = "the proof lost again"
    TOLD = "told so"


TRANSITIONS: Final[dict[tuple[SizeState, SizeStep], SizeState]] = {
    (SizeState.LONG, SizeStep.LOST): SizeState.DOUBTFUL,
    (SizeState.LONG, SizeStep.TOLD): SizeState.SHORT,
    (SizeState.DOUBTFUL, SizeStep.SHORT_PASSED): SizeState.PROVING,
    (SizeState.DOUBTFUL, SizeStep.LONG_PASSED): SizeState.LONG,
    (SizeState.DOUBTFUL, SizeStep.TOLD): SizeState.SHORT,
    (SizeState.PROVING, SizeStep.LONG_PASSED): SizeState.LONG,
    (SizeState.PROVING, SizeStep.PROOF_LOST): SizeState.SHORT,
    (SizeState.PROVING, SizeStep.TOLD): SizeState.SHORT,
}

#: Before any time.
_NEVER: Final = float("-inf")

#: How often the proof is lost before it counts: one loss may be any message's.
PROOFS: Final = 2


class MessageSize:
    """What one side knows of the length of its own messages.

    Args:
        short: Whether it is known from before that long ones do not pass.

    Attributes:
        state: What is known.
        found_short: Whether this session has found out that long ones do not pass.
        on_short: Told once, when it turns out that long ones do not pass.
    """

    def __init__(self, *, short: bool = False) -> None:
        self.state = SizeState.SHORT if short else SizeState.LONG
        self.found_short = False
        self.on_short: Callable[[], None] = lambda: None
        self._passed_at = _NEVER  # when a long message was last acknowledged
        self._since = _NEVER  # when this state began
        self._proofs_lost = 0

    @property
    def short(self) -> bool:
        """Whether long messages are known not to pass."""
        return self.state is SizeState.SHORT

    def long_allowed(self, in_flight: int) -> bool:
        """Whether a long message may be sent now, with so many of them in flight."""
        return self.state is SizeState.LONG or (self.state is SizeState.PROVING and not in_flight)

    def on_ack(self, *, long: bool, sent_at: float, now: float) -> None:
        """A message was acknowledged that was last sent at ``sent_at``, on the clock of ``now``."""
        if long:
            self._passed_at = now
            self._step(SizeStep.LONG_PASSED, now)
        elif sent_at >= self._since:
            self._step(SizeStep.SHORT_PASSED, now)

    def on_long_lost(self, *, sends: int, sent_at: float, now: float) -> None:
        """A long message was lost that was sent so often, at last at ``sent_at``."""
        if self.state is SizeState.PROVING and sent_at >= self._since:
            self._proofs_lost += 1
            if self._proofs_lost >= PROOFS:
                self._step(SizeStep.PROOF_LOST, now)
        elif sent_at > self._passed_at and (sends > 1 or self._passed_at == _NEVER):
            self._step(SizeStep.LOST, now)

    def on_told(self, now: float) -> None:
        """The gateway, or the peer, has said that they do not pass."""
        self._step(SizeStep.TOLD, now)

    def _step(self, what: SizeStep, now: float) -> None:
        after = TRANSITIONS.get((self.state, what))
        if after is not None:
            self.state, self._since, self._proofs_lost = after, now, 0
            if self.short:
                self.found_short = True
                self.on_short()
