"""Two linked transports in this process, as good or as bad as a test wants: no socket, no thread.

What becomes of a message depends on the seed and on how many were sent before it in its direction, never on
the clock, so a run can be repeated. Only the release of a message that was held back uses time: it is
overtaken by a number of later ones, or goes out as soon as its receiver has waited a moment in vain.
"""

from __future__ import annotations

import random
import threading
from collections import deque
from dataclasses import dataclass
from typing import Final

from emissary_lib.exceptions import LinkClosedError
from emissary_lib.transport.deadline import Deadline

#: How long a receiver waits for messages that overtake the ones held back, in seconds.
_HOLD: Final = 0.005


@dataclass(frozen=True)
class Faults:
    """How bad a link is; each is a probability of 0 to 1 that a message meets it.

    Attributes:
        loss: It never arrives.
        duplication: It arrives twice.
        delay: It is held back, and overtaken by up to ``overtaking`` later ones.
        overtaking: Most messages that may overtake one that is held back; at least 1.
    """

    loss: float = 0.0
    duplication: float = 0.0
    delay: float = 0.0
    overtaking: int = 8

    def __post_init__(self) -> None:
        for name in ("loss", "duplication", "delay"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a probability, 0 to 1, not {getattr(self, name)!r}")
        if self.overtaking < 1:
            raise ValueError(f"overtaking is at least 1, not {self.overtaking!r}")


def linked_pair(seed: int = 0, faults: Faults | None = None) -> tuple[MemoryTransport, MemoryTransport]:
    """Two transports; what one sends the other receives, as far as ``faults`` let it.

    Args:
        seed: Of everything that happens to messages; each direction has its own luck.
        faults: How bad both directions are; ``None`` for a link without fault, which keeps the order.
    """
    out = _Direction(random.Random(2 * seed), faults or Faults())
    back = _Direction(random.Random(2 * seed + 1), faults or Faults())
    return MemoryTransport(out, back), MemoryTransport(back, out)


class MemoryTransport:
    """One end; see :class:`emissary_lib.transport.base.MessageTransport` for the contract.

    Attributes:
        sent: Every message that was sent, lost ones included, in order.
    """

    def __init__(self, outgoing: _Direction, incoming: _Direction) -> None:
        self._outgoing = outgoing
        self._incoming = incoming
        self.sent: list[bytes] = []

    def send(self, text: bytes, timeout: float | None = None) -> None:
        """Send, or lose, double or hold back, as the faults want it. Never blocks."""
        self._outgoing.put(text)
        self.sent.append(text)

    def recv(self, timeout: float | None) -> bytes:
        """The next message; one that is held back comes when there is no other."""
        return self._incoming.get(Deadline(timeout))

    def close(self) -> None:
        """End both directions with 1000; the peer still gets what was sent before."""
        self._end(1000)

    def abort(self, code: int = 1006) -> None:
        """End both directions with a close code; the peer still gets what was sent before."""
        self._end(code)

    def release(self) -> None:
        """Nothing is held."""

    def _end(self, code: int) -> None:
        # What the peer was sent before still arrives; what it sent is not wanted any more.
        self._outgoing.end(code, drop=False)
        self._incoming.end(code, drop=True)


@dataclass
class _Held:
    text: bytes
    overtaken: int  # by how many more it may be


class _Direction:
    """Messages on their way one way."""

    def __init__(self, luck: random.Random, faults: Faults) -> None:
        self._luck = luck
        self._faults = faults
        self._ready: deque[bytes] = deque()
        self._held: list[_Held] = []
        self._changed = threading.Condition()
        self._ended: int | None = None

    def put(self, text: bytes) -> None:
        with self._changed:
            if self._ended is not None:
                raise LinkClosedError(f"the link in memory is closed: {self._ended}", close_code=self._ended)
            # All draws are made for each message, so that one fault's rate does not change another's luck.
            lost, doubled, delayed = (self._luck.random() for _ in range(3))
            overtaken = self._luck.randint(1, self._faults.overtaking)
            if lost < self._faults.loss:
                return
            for _copy in range(2 if doubled < self._faults.duplication else 1):
                if delayed < self._faults.delay:
                    self._held.append(_Held(text, overtaken))
                    delayed = 1.0  # a copy goes straight
                else:
                    self._ready.append(text)
                    self._overtake()
            self._changed.notify()

    def _overtake(self) -> None:
        for held in self._held:
            held.overtaken -= 1
        self._ready.extend(held.text for held in self._held if held.overtaken <= 0)
        self._held = [held for held in self._held if held.overtaken > 0]

    def get(self, deadline: Deadline) -> bytes:
        with self._changed:
            while not self._ready:
                if self._held:
                    if self._ended is None:
                        self._changed.wait(deadline.cap(_HOLD))
                    if self._held and not self._ready:  # the end may have dropped it
                        self._ready.append(self._held.pop(0).text)
                elif self._ended is not None:
                    raise LinkClosedError(
                        f"the link in memory was closed: {self._ended}", close_code=self._ended
                    )
                elif deadline.passed():
                    raise TimeoutError("timed out")
                else:
                    self._changed.wait(deadline.remaining())
            return self._ready.popleft()

    def end(self, code: int, *, drop: bool) -> None:
        with self._changed:
            if self._ended is None:
                self._ended = code
            if drop:
                self._ready.clear()
                self._held.clear()
            self._changed.notify_all()
