"""What a soak has seen so far."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from typing import Any, Final

from emissary_lib.protocol.stream.counters import Counters

#: Mismatches that are told in full; beyond that they are only counted.
TOLD: Final = 20


class MismatchError(Exception):
    """Bytes that are wrong or missing, delivered as if they were complete; or nothing, for too long."""


class Stats:
    """Counts of one soak.

    Thread safety: all methods may be called from any thread.

    Attributes:
        done: Pieces of work that went well, by kind.
        errors: Clear errors, by name: pieces of work that were cut short, and said so.
        mismatches: What must never be.
        peaks: The highest of each figure that was seen.
        unalarmed: Transfers of programs that have ended, of which nobody was told that anything is lost.
        cut_off: Transfers that ended with a clear error, and its name.
        interrupted: Sessions that ended with a clear error once they were open, and its name.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sessions: dict[int, Counters] = {}
        self._connections = 0
        self._others: Counter[str] = Counter()
        self.done: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.mismatches: list[str] = []
        self.peaks: dict[str, float] = {}
        self.unalarmed: set[int] = set()
        self.cut_off: dict[int, str] = {}
        self.interrupted: dict[str, str] = {}
        self._bytes = 0

    def session(self, counters: Counters) -> None:
        """A connection was opened; its session's counters, which it may share, are read at the end."""
        with self._lock:
            self._sessions[id(counters)] = counters
            self._connections += 1

    def moved(self, count: int) -> None:
        """So many bytes arrived and were right."""
        with self._lock:
            self._bytes += count

    def well(self, kind: str) -> None:
        """A piece of work is done."""
        with self._lock:
            self.done[kind] += 1

    def error(self, kind: str, name: str, text: str, session: str = "") -> None:
        """A piece of work ended with a clear error, which is told as well.

        Args:
            kind: Of the work.
            name: Of the error.
            text: What it says.
            session: Its id, if it was open.
        """
        with self._lock:
            self.errors[f"{kind}: {name}"] += 1
            if session:
                self.interrupted[session] = name
        sys.stderr.write(f"  {kind}: {name}: {text}\n")

    def errors_by_name(self) -> Counter[str]:
        """The clear errors, whatever the work was."""
        found: Counter[str] = Counter()
        for name, count in self.errors.items():
            found[name.partition(": ")[2]] += count
        return found

    def most(self, name: str, figure: float) -> None:
        """A figure was seen; the highest of its name is kept."""
        with self._lock:
            self.peaks[name] = max(figure, self.peaks.get(name, 0.0))

    def mismatch(self, what: str) -> None:
        """Something is wrong."""
        with self._lock:
            self.mismatches.append(what)

    def sums(self) -> dict[str, int]:
        """Sessions, their connections, bytes that arrived right, and the sum of the sessions' counters."""
        with self._lock:
            total = Counter(self._others)
            for counters in self._sessions.values():
                total.update({name: getattr(counters, name) for name in Counters.__slots__})
            total["sessions"] += len(self._sessions)
            total["connections"] += self._connections
            total["bytes"] += self._bytes
        return dict(total)

    def as_json(self) -> dict[str, Any]:
        """For :meth:`add` in another process."""
        return {
            "sums": self.sums(),
            "done": dict(self.done),
            "errors": dict(self.errors),
            "mismatches": self.mismatches,
            "peaks": self.peaks,
            "cut_off": list(self.cut_off.items()),
            "interrupted": self.interrupted,
        }

    def add(self, other: dict[str, Any]) -> None:
        """Add what another process has seen."""
        with self._lock:
            self._others.update(other["sums"])
            self.done.update(other["done"])
            self.errors.update(other["errors"])
            self.mismatches += other["mismatches"]
            self.cut_off.update(other["cut_off"])
            self.interrupted.update(other["interrupted"])
        for name, figure in other["peaks"].items():
            self.most(name, figure)
