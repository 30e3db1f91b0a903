"""How many sessions there may be at once (docs/protocol.md section 3.5).

Each limit of N has N slots, items of a table of their own. A session takes one of each limit in the very
transaction that launches it, and so there are never more than N: nothing is counted that could be counted
wrong. A slot is a lease: that of a session which nobody ended runs out by itself.
"""

from __future__ import annotations

from typing import Final

from emissary_lib.protocol.record import Record


class Limit(Record):
    """One limit.

    Attributes:
        most: Sessions at once.
        key_id: Of which key; None for all sessions.
    """

    most: int
    key_id: int | None = None

    @property
    def name(self) -> str:
        """``L``, or ``K#<key id>``."""
        return "L" if self.key_id is None else f"K#{self.key_id}"

    @property
    def slots(self) -> list[str]:
        """The names of its slots: ``L#0``, ``L#1``, ... or ``K#<key id>#0``, ..."""
        return [f"{self.name}#{number}" for number in range(self.most)]

    def __str__(self) -> str:
        whose = "" if self.key_id is None else f" for key {self.key_id}"
        return f"limit of {self.most} sessions{whose}"


class Limits(Record):
    """The limits of a stack; 0 is no limit.

    Attributes:
        total: Of all sessions.
        per_key: Of the sessions of each key.
    """

    total: int = 0
    per_key: int = 0

    def of(self, key_id: int) -> tuple[Limit, ...]:
        """The limits that a session of this key has to keep; that of the key first, which says more."""
        limits = (Limit(self.per_key, key_id), Limit(self.total))
        return tuple(limit for limit in limits if limit.most)


NO_LIMITS: Final = Limits()


def smallest(*limits: int) -> int:
    """The limit that holds where there are several; 0 is no limit."""
    return min((limit for limit in limits if limit), default=0)
