"""Sessions in DynamoDB: each step one conditional write, each read consistent.

A retry makes a conditional write ambiguous: the first try may have won and only its answer was lost,
and then the second fails on the first's work. So a failed condition brings the old item along, and where that
shows this very request as its author, the write counts as done.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from emissary_lib.bridge import items
from emissary_lib.bridge.items import number, text
from emissary_lib.bridge.limits import Limit
from emissary_lib.bridge.session import (
    LONGEST_RELAY_TIME,
    PURGE_MARGIN,
    Claim,
    Connection,
    EndRecord,
    Fragment,
    LaunchRecord,
    RecordState,
    RecordStep,
    Resume,
    SessionRecord,
    claim_refusal,
    launched_at_the_door,
    resume_refusal,
)
from emissary_lib.bridge.writes import Write, end_session, state_in
from emissary_lib.protocol.constants import MAX_OPENING_TOTAL, RELAUNCH_AFTER
from emissary_lib.protocol.role import Role
from emissary_lib.protocol.wire.payloads import Connections
from functions.common.adapters.dynamo import Action, ConditionFailedError, Table
from functions.common.adapters.service import Operations
from functions.common.adapters.slots import Slots
from functions.common.errors import ClaimRefusedError, LimitReachedError, NonceBurntError, StoreError
from functions.common.ports import Outcome

_NEW: Final = "attribute_not_exists(#pk)"
_BURNT: Final = "the nonce was used before; start over with a fresh one"

#: Tries of a launch that other sessions take a free slot from.
_TRIES: Final = 10


class DynamoSessionStore:
    """:class:`ports.SessionStore` over DynamoDB.

    Args:
        client: DynamoDB.
        table: Name of the table of sessions and connections.
        slots: Name of the table of the limits' slots.
        sleep: Waits some seconds between tries of a write that met another transaction.
        rng: Draws the jitter of those waits, and which free slot is taken.
    """

    def __init__(
        self,
        client: Operations,
        table: str,
        slots: str,
        *,
        sleep: Callable[[float], None] = time.sleep,
        rng: random.Random = random.SystemRandom(),  # noqa: B008 - without state
    ) -> None:
        self._table = Table(client, table, sleep, rng)
        self._slots = Slots(Table(client, slots, sleep, rng), self._table, rng)

    def create(self, session: SessionRecord) -> None:
        """See :meth:`ports.SessionStore.create`."""
        try:
            self._table.transact(*self._creation(session, session.purge_at))
        except ConditionFailedError as failed:
            old = _session(failed.items[0])
            if old is not None and old.dialer == session.dialer:
                return
            raise NonceBurntError(_BURNT) from None

    def create_launched(self, session: SessionRecord, launch: LaunchRecord) -> SessionRecord:
        """See :meth:`ports.SessionStore.create_launched`."""
        slots: Sequence[str] = ()

        def creation(names: Sequence[str]) -> Sequence[Action]:
            nonlocal slots
            slots = names
            return self._creation(launched_at_the_door(session, launch, names), session.purge_at)

        failed = self._launch_limited(session.id, launch, creation)
        if failed is None:
            return launched_at_the_door(session, launch, slots)
        old = _session(failed[0])
        if old is not None and _is_of(launch, old):
            return old
        raise NonceBurntError(_BURNT)

    def _creation(self, session: SessionRecord, purge_at: int) -> Sequence[Action]:
        dialer = Connection(str(session.dialer.connection), session.id, Role.DIALER, session.dialer.epoch)
        return (
            self._table.action(Write.put(items.new_session(session), _NEW)),
            self._table.action(Write.put(items.connection(dialer, purge_at), _NEW)),
        )

    def connection(self, connection_id: str) -> Connection | None:
        """See :meth:`ports.SessionStore.connection`."""
        item = self._table.get(items.connection_key(connection_id))
        return None if item is None else items.read_connection(item)

    def session(self, session_id: str) -> SessionRecord | None:
        """See :meth:`ports.SessionStore.session`."""
        return _session(self._table.get(items.session_key(session_id)))

    def add_fragment(self, session_id: str, fragment: Fragment, now: float) -> Outcome:
        """See :meth:`ports.SessionStore.add_fragment`."""
        member = items.fragment_text(fragment)
        states, values = state_in(RecordStep.ADD_FRAGMENT)
        # One that is there already counts once: then nothing is written, and the old item shows why.
        return self._update(
            session_id,
            "ADD #fragments :members, #opening_bytes :weight",
            f"{states} AND #expires > :now AND NOT contains(#fragments, :member)"
            " AND (attribute_not_exists(#opening_bytes) OR #opening_bytes <= :room)",
            values
            | {
                ":members": {"SS": [member]},
                ":member": text(member),
                ":weight": number(fragment.weight),
                ":room": number(MAX_OPENING_TOTAL - fragment.weight),
                ":now": number(now),
            },
            lambda old: fragment in old.fragments,
        )

    def launch(self, session_id: str, launch: LaunchRecord) -> Outcome:
        """See :meth:`ports.SessionStore.launch`."""
        if not launch.limits:
            return self._write(_launch_write(session_id, launch, ()), lambda old: _is_of(launch, old))

        def update(slots: Sequence[str]) -> Sequence[Action]:
            return (self._table.action(_launch_write(session_id, launch, slots)),)

        failed = self._launch_limited(session_id, launch, update)
        if failed is None:
            return Outcome(self.session(session_id), True)
        old = _session(failed[0])
        return Outcome(old, old is not None and _is_of(launch, old))

    def _launch_limited(
        self, session_id: str, launch: LaunchRecord, own: Callable[[Sequence[str]], Sequence[Action]]
    ) -> Sequence[items.Item | None] | None:
        """Write a launch and take a slot of each of its limits, all of it or nothing.

        Args:
            session_id: Who takes them.
            launch: The launch.
            own: Gives the session's own writes, from the slots' names.

        Returns:
            None if it is done; else the old items of the session's own writes, one of which failed.

        Raises:
            LimitReachedError: A limit has no slot left.
            StoreError: Nothing is known of the outcome, or others were quicker too often.
        """
        # Each limit is read once, however many others launch at the same time: who is refused costs as much.
        free = [self._slots.free(limit, session_id, launch.held, launch.at) for limit in launch.limits]
        for _try in range(_TRIES):
            slots = [names[0] for names in free]
            writes = own(slots)
            try:
                self._table.transact(*writes, *(self._slots.take(name, session_id, launch) for name in slots))
            except ConditionFailedError as failed:
                old, quicker = failed.items[: len(writes)], failed.items[len(writes) :]
                if any(old) or not any(quicker):
                    return old
                for limit, names, taken in zip(launch.limits, free, quicker, strict=True):
                    if taken is None:
                        continue
                    del names[0]  # another session was quicker
                    if not names:
                        raise LimitReachedError(f"{limit} reached") from None
            else:
                return None
        raise StoreError(f"other sessions were quicker with a free slot {_TRIES} times")

    def lose_launch(self, session_id: str, launch: LaunchRecord) -> None:
        """See :meth:`ports.SessionStore.lose_launch`."""
        states, values = state_in(RecordStep.LOSE)
        self._update(
            session_id,
            "SET #launch_lost_at = :at",
            f"{states} AND #invoked_at = :at",
            values | {":at": number(launch.at)},
            lambda old: True,
        )

    def short_messages(self, now: float) -> bool:
        """See :meth:`ports.SessionStore.short_messages`."""
        item = self._table.get(items.stack_key())
        return item is not None and float(item["purge_at"]["N"]) > now

    def note_short_messages(self, now: float, until: float) -> None:
        """See :meth:`ports.SessionStore.note_short_messages`."""
        write = Write.update(
            items.stack_key(),
            "SET #purge_at = :until",
            "attribute_not_exists(#pk) OR #purge_at <= :now",
            {":until": number(until), ":now": number(now)},
        )
        with contextlib.suppress(ConditionFailedError):  # another session was quicker
            self._table.update(write)

    def in_use(self, limit: Limit, now: float) -> int:
        """See :meth:`ports.SessionStore.in_use`."""
        return self._slots.in_use(limit, now)

    def release(self, session: SessionRecord, until: float) -> None:
        """See :meth:`ports.SessionStore.release`."""
        self._slots.release(session, until)

    def desert(self, session: SessionRecord, until: float) -> None:
        """See :meth:`ports.SessionStore.desert`."""
        self._slots.desert(session, until)

    def renew(self, session: SessionRecord) -> bool:
        """See :meth:`ports.SessionStore.renew`."""
        return self._slots.renew(session)

    def claim(self, claim: Claim) -> RecordState:
        """See :meth:`ports.SessionStore.claim`."""
        states, values = state_in(RecordStep.CLAIM)
        relay = Connection(claim.connection, claim.session, Role.RELAY, claim.epoch)
        update = Write.update(
            items.session_key(claim.session),
            f"SET #state = :to, {_take_over(Role.RELAY)},"
            " #instance = :instance, #relay_expires = if_not_exists(#relay_expires, :expires),"
            " #claimed_at = if_not_exists(#claimed_at, :now) REMOVE #fragments, #opening_bytes",
            f"{states} AND {_is_of_a_launch('relay')} AND #relay_epoch < :epoch"
            " AND (attribute_not_exists(#instance) OR #instance = :instance)"
            " AND (#relay_expires > :now OR (attribute_not_exists(#relay_expires) AND #expires > :now))",
            values
            | _take_over_values(relay)
            | {
                ":to": text(RecordState.OPEN.value),
                ":instance": text(claim.instance),
                ":expires": number(claim.expires),
                ":token": text(claim.token_hash),
                ":now": number(claim.at),
            },
        )

        def is_own(old: SessionRecord) -> bool:
            return old.instance == claim.instance and claim.token_hash in old.relay_token_hashes

        purge_at = int(claim.at + LONGEST_RELAY_TIME + PURGE_MARGIN)
        return self._admit(update, relay, purge_at, lambda old: claim_refusal(old, claim), is_own)

    def resume(self, resume: Resume) -> RecordState:
        """See :meth:`ports.SessionStore.resume`."""
        states, values = state_in(RecordStep.RESUME)
        dialer = Connection(resume.connection, resume.session, Role.DIALER, resume.epoch)
        update = Write.update(
            items.session_key(resume.session),
            f"SET {_take_over(Role.DIALER)}",
            f"{states} AND #key_id = :key AND {_is_of_a_launch('resume')} AND #dialer_epoch < :epoch"
            " AND #relay_expires > :now",
            values
            | _take_over_values(dialer)
            | {
                ":key": number(resume.key_id),
                ":token": text(resume.token_hash),
                ":now": number(resume.at),
            },
        )
        purge_at = int(resume.at + LONGEST_RELAY_TIME + PURGE_MARGIN)
        return self._admit(update, dialer, purge_at, lambda old: resume_refusal(old, resume))

    def _admit(
        self,
        update: Write,
        own: Connection,
        purge_at: int,
        refusal: Callable[[SessionRecord | None], str | None],
        is_own: Callable[[SessionRecord], bool] = lambda old: True,
    ) -> RecordState:
        """Do the update and write the connection; where the session has ended, do so without the update."""
        states, values = state_in(RecordStep.REVISIT)
        # Who may ask is read from the old item: nothing of it but its connections changes after the end.
        visit = Write.update(
            items.session_key(own.session),
            f"SET {_take_over(own.role)}",
            f"{states} AND #{own.role.value}_epoch < :epoch",
            values | _take_over_values(own),
        )
        put = Write.put(items.connection(own, purge_at), _NEW)
        for write, state in ((update, RecordState.OPEN), (visit, RecordState.ENDED)):
            try:
                self._table.transact(self._table.action(write), self._table.action(put))
            except ConditionFailedError as failed:
                old = _session(failed.items[0])
                if old is not None and is_own(old) and _is_done(failed, own):
                    return old.state
                cause = refusal(old)
                if cause is not None or old is None or old.state is not RecordState.ENDED:
                    raise ClaimRefusedError(cause or "the connection id is taken", old) from None
            else:
                return state
        raise ClaimRefusedError("the connection id is taken")

    def restore(self, connection: Connection) -> Outcome:
        """See :meth:`ports.SessionStore.restore`."""
        states, values = state_in(RecordStep.RESTORE)
        role = connection.role.value
        return self._update(
            connection.session,
            f"SET #{role}_connection = :connection",
            f"{states} AND attribute_not_exists(#{role}_connection) AND #{role}_epoch = :epoch",
            values | {":connection": text(connection.id), ":epoch": number(connection.epoch)},
            lambda old: old.side(connection.role).connection == connection.id,
        )

    def clear(self, session_id: str, role: Role, connection_id: str, epoch: int, at: float) -> Outcome:
        """See :meth:`ports.SessionStore.clear`."""
        attribute = f"#{role.value}_connection"
        return self._update(
            session_id,
            f"SET #{role.value}_left = :at REMOVE {attribute}",
            f"{attribute} = :connection",
            {":connection": text(connection_id), ":at": number(at)},
            lambda old: old.side(role).connection is None and old.side(role).epoch == epoch,
        )

    def note_connections(self, session_id: str, counts: Connections) -> Outcome:
        """See :meth:`ports.SessionStore.note_connections`."""
        states, values = state_in(RecordStep.COUNT)
        return self._update(
            session_id,
            "SET #connections_opened = :opened, #connections_open = :open, #connections_refused = :refused",
            f"{states} AND (attribute_not_exists(#connections_opened) OR #connections_opened <= :opened)",
            values
            | {
                ":opened": number(counts.opened),
                ":open": number(counts.open),
                ":refused": number(counts.refused),
            },
            lambda old: old.connections == counts,
        )

    def end(self, session_id: str, ending: EndRecord, step: RecordStep) -> Outcome:
        """See :meth:`ports.SessionStore.end`."""
        session, _ = self._write(end_session(session_id, ending, step), lambda old: False)
        ended_here = session is not None and session.ending is not None and session.ending.by == ending.by
        return Outcome(session, ended_here)

    def note_record(self, session_id: str, by: str) -> bool:
        """See :meth:`ports.SessionStore.note_record`."""
        write = Write.update(
            items.session_key(session_id),
            "SET #recorded_by = :by",
            "attribute_exists(#pk) AND attribute_not_exists(#recorded_by)",
            {":by": text(by)},
        )
        try:
            self._table.update(write)
        except ConditionFailedError as failed:
            old = failed.items[0]
            return old is not None and old.get("recorded_by") == text(by)
        return True

    def _update(
        self,
        session_id: str,
        update: str,
        condition: str,
        values: Mapping[str, items.Attribute],
        is_mine: Callable[[SessionRecord], bool],
    ) -> Outcome:
        return self._write(Write.update(items.session_key(session_id), update, condition, values), is_mine)

    def _write(self, write: Write, is_mine: Callable[[SessionRecord], bool]) -> Outcome:
        try:
            return Outcome(_session(self._table.update(write)), True)
        except ConditionFailedError as failed:
            old = _session(failed.items[0])
            return Outcome(old, old is not None and is_mine(old))


def _session(item: items.Item | None) -> SessionRecord | None:
    return None if item is None else items.read_session(item)


def _launch_write(session_id: str, launch: LaunchRecord, slots: Sequence[str]) -> Write:
    states, values = state_in(RecordStep.LAUNCH)
    taken = ", #slots = :slots" if slots else ""
    if slots:
        values |= {":slots": {"SS": list(slots)}}
    return Write.update(
        items.session_key(session_id),
        f"SET #state = :to, #target = :target, #invoked_at = :now, #purge_at = :purge{taken}"
        " REMOVE #launch_lost_at ADD #relay_token_hashes :relays, #resume_token_hashes :resumes",
        f"{states} AND #expires > :now AND (attribute_not_exists(#invoked_at) OR #invoked_at < :stale"
        " OR attribute_exists(#launch_lost_at))",
        values
        | {
            ":to": text(RecordState.INVOKED.value),
            ":target": text(launch.target),
            ":relays": {"SS": [launch.relay_token_hash]},
            ":resumes": {"SS": [launch.resume_token_hash]},
            ":now": number(launch.at),
            ":stale": number(launch.at - RELAUNCH_AFTER),
            ":purge": number(launch.purge_at),
        },
    )


def _is_of(launch: LaunchRecord, session: SessionRecord) -> bool:
    return launch.relay_token_hash in session.relay_token_hashes


def _is_of_a_launch(token: str) -> str:
    """A condition that ``:token`` is that of a launch; older code has written that of the last one alone."""
    return f"(contains(#{token}_token_hashes, :token) OR #{token}_token_hash = :token)"


def _is_done(failed: ConditionFailedError, own: Connection) -> bool:
    """Whether an earlier try of this very request has given its side the connection.

    It may have been forgotten since: until ``$connect`` has answered, a post to it is answered 410. Then the
    connection's own item, which is written with the session's or not at all, is the proof, and its client
    gets it back by RESUME.
    """
    old, written = _session(failed.items[0]), failed.items[1]
    if old is None or old.side(own.role).epoch != own.epoch:
        return False
    current = old.side(own.role).connection
    forgotten = current is None and written is not None and items.read_connection(written) == own
    return current == own.id or forgotten


def _take_over(role: Role) -> str:
    """Assignments that give a side ``:connection`` at ``:epoch``, and keep the connection it has had.

    It is copied before it is replaced; DynamoDB itself takes every value from the item as it was.
    """
    side = f"#{role.value}"
    return (
        f"{side}_previous = if_not_exists({side}_connection, :none),"
        f" {side}_connection = :connection, {side}_epoch = :epoch"
    )


def _take_over_values(own: Connection) -> dict[str, items.Attribute]:
    """The values for :func:`_take_over`."""
    return {":connection": text(own.id), ":epoch": number(own.epoch), ":none": text("")}
