"""Slots of a limit as items of the session table, taken and given back by updates alone.

So the functions need neither PutItem nor DeleteItem for them: a free slot is an item that does not exist, or
one whose lease has run out.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Final

from emissary_lib.bridge import items
from emissary_lib.bridge.items import Item, number, text
from emissary_lib.bridge.limits import Limit
from emissary_lib.bridge.session import PURGE_MARGIN, LaunchRecord, RecordStep, SessionRecord
from emissary_lib.bridge.writes import Write, release_slot, state_in
from functions.common import logs
from functions.common.adapters.dynamo import ConditionFailedError, Table
from functions.common.errors import LimitReachedError, StoreError

#: Slots read at once: where there are many, one of so few is almost always free.
_CHUNK: Final = 25


class Slots:
    """The slots of one table.

    Args:
        table: The table.
        rng: Chooses among free slots, so that launches that meet do not all want the same one.
    """

    def __init__(self, table: Table, rng: random.Random) -> None:
        self._table = table
        self._rng = rng

    def choose(self, limit: Limit, session_id: str, held: Iterable[str], now: float) -> str:
        """A slot that the session may take as far as can be seen; one that it is known to hold comes first.

        Raises:
            LimitReachedError: There is none.
            StoreError: The table could not be read.
        """
        names = limit.slots
        own = sorted(set(held) & set(names))
        if own:
            return own[0]
        self._rng.shuffle(names)
        for chunk in _chunks(names):
            taken = self._find_taken(chunk, now, session_id)
            free = [name for name in chunk if name not in taken]
            if free:
                return free[0]
        raise LimitReachedError(f"{limit} reached")

    def take(self, name: str, session_id: str, launch: LaunchRecord) -> Write:
        """The write that takes a slot, for the launch's transaction; it fails if another session holds it."""
        return Write.update(
            items.slot_key(name),
            "SET #session = :session, #expires = :lease, #purge_at = :purge",
            "attribute_not_exists(#pk) OR #expires <= :now OR #session = :session",
            {
                ":session": text(session_id),
                ":lease": number(launch.lease),
                ":purge": number(int(launch.lease + PURGE_MARGIN)),
                ":now": number(launch.at),
            },
        )

    def in_use(self, limit: Limit, now: float) -> int:
        """See :meth:`ports.SessionStore.in_use`."""
        return sum(len(self._find_taken(chunk, now)) for chunk in _chunks(limit.slots))

    def release(self, session: SessionRecord, until: float) -> None:
        """See :meth:`ports.SessionStore.release`. What cannot be given back runs out by itself."""
        for name in sorted(session.slots):
            try:
                self._table.update(release_slot(name, session.id, until))
            except ConditionFailedError:
                continue  # it is free sooner, or its lease had run out and another session has it
            except StoreError as exc:
                logs.warning("slot not given back", session=session.id, cause=str(exc))

    def desert(self, session: SessionRecord, until: float) -> None:
        """See :meth:`ports.SessionStore.desert`. What cannot be written runs out by itself."""
        if not session.slots:
            return
        states, values = state_in(RecordStep.RESTORE)
        note = Write.update(
            items.session_key(session.id),
            "SET #slots_until = :until",
            f"{states} AND attribute_not_exists(#relay_connection) AND #relay_epoch = :epoch",
            values | {":until": number(until), ":epoch": number(session.relay.epoch)},
        )
        try:
            self._table.transact(note, *_leases(session, until))
        except ConditionFailedError:
            return  # the relay has come back, or another session has a slot
        except StoreError as exc:
            logs.warning("slot not given back", session=session.id, cause=str(exc))

    def renew(self, session: SessionRecord) -> bool:
        """See :meth:`ports.SessionStore.renew`."""
        states, values = state_in(RecordStep.RESTORE)
        note = Write.update(
            items.session_key(session.id),
            "REMOVE #slots_until",
            f"{states} AND #relay_epoch = :epoch",
            values | {":epoch": number(session.relay.epoch)},
        )
        try:
            self._table.transact(note, *_leases(session, session.expires))
        except ConditionFailedError as failed:
            return not any(failed.items[1:])
        return True

    def _find_taken(self, names: list[str], now: float, session_id: str | None = None) -> set[str]:
        found = self._table.get_many([items.slot_key(name) for name in names])
        return {str(item[items.KEY]["S"]) for item in found if _is_taken(item, now, session_id)}


def _leases(session: SessionRecord, until: float) -> Iterable[Write]:
    """Writes that lease a session's slots until then; they fail if another session has one."""
    for name in sorted(session.slots):
        yield Write.update(
            items.slot_key(name),
            "SET #expires = :until",
            "#session = :session",
            {":session": text(session.id), ":until": number(until)},
        )


def _is_taken(item: Item, now: float, session_id: str | None) -> bool:
    return float(item["expires"]["N"]) > now and item["session"]["S"] != session_id


def _chunks(names: list[str]) -> Iterable[list[str]]:
    return (names[start : start + _CHUNK] for start in range(0, len(names), _CHUNK))
