"""Slots of a limit as items of a table of their own, taken and given back by updates alone.

So the functions need neither PutItem nor DeleteItem for them: a free slot is an item that does not exist, or
one whose lease has run out. A limit is one partition, and is read whole by one query: that of 1,000 slots
takes no more than 25 read units, as one of 40 does in an item each.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Final

from emissary_lib.bridge import items
from emissary_lib.bridge.items import Item, number
from emissary_lib.bridge.limits import Limit
from emissary_lib.bridge.session import PURGE_MARGIN, LaunchRecord, RecordStep, SessionRecord
from emissary_lib.bridge.writes import Write, state_in
from functions.common import logs
from functions.common.adapters.dynamo import Action, ConditionFailedError, Table
from functions.common.errors import LimitReachedError, StoreError

#: A condition on a limit's keys: beyond ``:most`` there are slots if the limit was higher once.
_OF_LIMIT: Final = "#limit = :limit AND #slot < :most"


class Slots:
    """The slots of one table.

    Args:
        table: The table of slots.
        sessions: The table of sessions, whose items change with them.
        rng: Chooses among free slots, so that launches that meet do not all want the same one.
    """

    def __init__(self, table: Table, sessions: Table, rng: random.Random) -> None:
        self._table = table
        self._sessions = sessions
        self._rng = rng

    def free(self, limit: Limit, session_id: str, held: Iterable[str], now: float) -> list[str]:
        """The slots that the session may take as far as can be seen, at least one, in the order to try them.

        One that it is known to hold comes first.

        Raises:
            LimitReachedError: There is none.
            StoreError: The table could not be read.
        """
        taken = self._find_taken(limit, now, session_id)
        names = [name for name in limit.slots if name not in taken]
        if not names:
            raise LimitReachedError(f"{limit} reached")
        self._rng.shuffle(names)
        return sorted(names, key=lambda name: name not in held)

    def take(self, name: str, session_id: str, launch: LaunchRecord) -> Action:
        """The write that takes a slot, for the launch's transaction; it fails if another session holds it."""
        return self._table.action(
            Write.update(
                items.slot_key(name),
                "SET #session = :session, #expires = :lease, #purge_at = :purge",
                "attribute_not_exists(#limit) OR #expires <= :now OR #session = :session",
                {
                    ":session": items.holder(session_id),
                    ":lease": number(launch.lease),
                    ":purge": number(int(launch.lease + PURGE_MARGIN)),
                    ":now": number(launch.at),
                },
            )
        )

    def in_use(self, limit: Limit, now: float) -> int:
        """See :meth:`ports.SessionStore.in_use`."""
        return len(self._find_taken(limit, now))

    def release(self, session: SessionRecord, until: float) -> None:
        """See :meth:`ports.SessionStore.release`. What cannot be given back runs out by itself."""
        for name in sorted(session.slots):
            write = Write.update(
                items.slot_key(name),
                "SET #expires = :until",
                "#session = :session AND #expires > :until",
                {":until": number(until), ":session": items.holder(session.id)},
            )
            try:
                self._table.update(write)
            except ConditionFailedError:
                continue  # it is free sooner, or its lease had run out and another session has it
            except StoreError as exc:
                logs.warning("slot not given back", session=session.id, cause=str(exc))

    def desert(self, session: SessionRecord, until: float) -> None:
        """See :meth:`ports.SessionStore.desert`. What cannot be written runs out by itself."""
        if not session.slots:
            return
        try:
            self._lease(
                session,
                until,
                "SET #slots_until = :until",
                "attribute_not_exists(#relay_connection) AND #relay_epoch = :epoch",
                {":until": number(until)},
            )
        except ConditionFailedError:
            return  # the relay has come back, or another session has a slot
        except StoreError as exc:
            logs.warning("slot not given back", session=session.id, cause=str(exc))

    def renew(self, session: SessionRecord) -> bool:
        """See :meth:`ports.SessionStore.renew`."""
        try:
            self._lease(session, session.expires, "REMOVE #slots_until", "#relay_epoch = :epoch", {})
        except ConditionFailedError as failed:
            return not any(failed.items[1:])
        return True

    def _lease(self, session: SessionRecord, until: float, note: str, condition: str, values: Item) -> None:
        """Lease a session's slots until then, and note it in the session; all of it or nothing.

        Raises:
            ConditionFailedError: The session is another's to write by now, or has ended; or, behind the first
                item, another session has a slot.
            StoreError: The table could not be reached.
        """
        states, known = state_in(RecordStep.RESTORE)
        write = Write.update(
            items.session_key(session.id),
            note,
            f"{states} AND {condition}",
            {**known, **values, ":epoch": number(session.relay.epoch)},
        )
        self._sessions.transact(self._sessions.action(write), *self._leases(session, until))

    def _leases(self, session: SessionRecord, until: float) -> Iterable[Action]:
        """Writes that lease a session's slots until then; they fail if another session has one."""
        for name in sorted(session.slots):
            yield self._table.action(
                Write.update(
                    items.slot_key(name),
                    "SET #expires = :until",
                    "#session = :session",
                    {":session": items.holder(session.id), ":until": number(until)},
                )
            )

    def _find_taken(self, limit: Limit, now: float, session_id: str | None = None) -> set[str]:
        """The names of the slots that others than this session hold."""
        found = self._table.query(
            _OF_LIMIT, {":limit": items.text(limit.name), ":most": items.number(limit.most)}
        )
        own = None if session_id is None else items.holder(session_id)["B"]
        return {items.slot_name(item) for item in found if _is_taken(item, now, own)}


def _is_taken(item: Item, now: float, own: bytes | None) -> bool:
    return float(item["expires"]["N"]) > now and bytes(item["session"]["B"]) != own
