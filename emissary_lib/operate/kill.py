"""Puts sessions out, one after another: what goes wrong with one keeps nobody from the next."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from emissary_lib.aws import aws_errors
from emissary_lib.bridge.session import SessionRecord
from emissary_lib.exceptions import OperationError
from emissary_lib.operate.notify import NOT_REACHED, tell_ended
from emissary_lib.operate.sessions import SessionTable


class KillResult(enum.Enum):
    """What has become of a session that was to be killed."""

    KILLED = "killed"
    ENDED = "had ended already"
    FAILED = "not killed"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What has come of killing one session.

    Attributes:
        session: The session.
        result: What has become of it.
        told: Side -> what :func:`tell_ended` says of it; empty unless it was killed.
        cause: Why it was not killed.
    """

    session: SessionRecord
    result: KillResult
    told: Mapping[str, str] = field(default_factory=dict)
    cause: str = ""

    @property
    def unreached_sides(self) -> list[str]:
        """The sides that could neither be told nor cut off, and so may go on."""
        return [side for side, what in self.told.items() if what == NOT_REACHED]


def select_sessions(table: SessionTable, named: Iterable[str], key_id: int | None) -> list[SessionRecord]:
    """The sessions that are meant, each once.

    Args:
        table: The sessions.
        named: Ids, or their beginnings.
        key_id: All living sessions of this key as well; None for none.

    Raises:
        OperationError: One of ``named`` is not there or could be several, or there is nobody to kill.
    """
    found = {each.record.id: each.record for each in map(table.find, named)}
    if key_id is not None:
        living = [each.record for each in table.list(alive=True, everything=True)]
        found |= {each.id: each for each in living if each.key_id == key_id}
        if not found:
            raise OperationError(f"no session of key {key_id} is alive")
    return list(found.values())


def kill_all(table: SessionTable, callbacks: Any, sessions: Iterable[SessionRecord]) -> Iterator[Outcome]:
    """End each session and tell both its sides, as the outcomes are asked for.

    Args:
        table: The sessions.
        callbacks: As for :func:`tell_ended`.
        sessions: Whom to kill.
    """
    for each in sessions:
        try:
            with aws_errors():
                killed = table.kill(each.id)
        except OperationError as exc:
            yield Outcome(each, KillResult.FAILED, cause=str(exc))
            continue
        if killed is None:
            yield Outcome(each, KillResult.ENDED)
        else:
            yield Outcome(killed, KillResult.KILLED, tell_ended(callbacks, killed))
