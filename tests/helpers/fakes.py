"""In-memory stand-ins for the functions' ports. The store keeps the contract of the real one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from emissary_lib.bridge.limits import Limit
from emissary_lib.bridge.session import (
    RECORD_TIME,
    TRANSITIONS,
    Claim,
    Connection,
    EndRecord,
    Fragment,
    LaunchRecord,
    RecordState,
    RecordStep,
    Resume,
    SessionRecord,
    Side,
    claim_refusal,
    has_room,
    launched_at_the_door,
    may_launch,
    may_restore,
    resume_refusal,
)
from emissary_lib.protocol.record import replace
from emissary_lib.protocol.role import Role
from emissary_lib.protocol.wire.frames import Frame, decode
from emissary_lib.protocol.wire.payloads import Connections
from functions.common.errors import (
    ClaimRefusedError,
    LaunchError,
    LimitReachedError,
    MessageTooLargeError,
    NonceBurntError,
    PeerBusyError,
    PeerGoneError,
    StoreError,
)
from functions.common.ports import Outcome


class FakeClock:
    """A wall clock that stands still until it is moved."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class FakeEntropy:
    """Bytes that differ at each draw and are the same in each run."""

    def __init__(self) -> None:
        self.draws = 0

    def __call__(self, count: int) -> bytes:
        self.draws += 1
        return bytes([self.draws]) * count


class FakeStore:
    """:class:`ports.SessionStore` in memory.

    Attributes:
        reads: How many reads there were.
        writes: How many writes were tried.
        down: While True, everything raises StoreError.
    """

    def __init__(self) -> None:
        self.sessions: dict[str, SessionRecord] = {}
        self.connections: dict[str, Connection] = {}
        self.leases: dict[str, tuple[str, float]] = {}
        self.recorded: dict[str, str] = {}
        self.reads = 0
        self.writes = 0
        self.down = False
        self.short_until = 0.0

    def create(self, session: SessionRecord) -> None:
        self._write()
        connection = str(session.dialer.connection)
        old = self.sessions.get(session.id)
        if old is not None and old.dialer == session.dialer:
            return
        if old is not None or connection in self.connections:
            raise NonceBurntError("the nonce was used before; start over with a fresh one")
        self.sessions[session.id] = session
        self.connections[connection] = Connection(connection, session.id, Role.DIALER, session.dialer.epoch)

    def create_launched(self, session: SessionRecord, launch: LaunchRecord) -> SessionRecord:
        old = self.sessions.get(session.id)
        if old is not None and launch.relay_token_hash in old.relay_token_hashes:
            self._write()
            return old
        # As the real one: limits are read before anything is written.
        slots = frozenset(self._slot(limit, session.id, launch) for limit in launch.limits)
        self.create(session)
        self.leases.update(dict.fromkeys(slots, (session.id, launch.lease)))
        self.sessions[session.id] = launched = launched_at_the_door(session, launch, slots)
        return launched

    def lose_launch(self, session_id: str, launch: LaunchRecord) -> None:
        old = self._old(session_id)
        if old is not None and old.state is RecordState.INVOKED and old.invoked_at == launch.at:
            self._put(old, launch_lost_at=launch.at)

    def connection(self, connection_id: str) -> Connection | None:
        self._read()
        return self.connections.get(connection_id)

    def session(self, session_id: str) -> SessionRecord | None:
        self._read()
        return self.sessions.get(session_id)

    def add_fragment(self, session_id: str, fragment: Fragment, now: float) -> Outcome:
        old = self._old(session_id)
        sources = TRANSITIONS[RecordStep.ADD_FRAGMENT].sources
        if old is None or fragment in old.fragments:
            return Outcome(old, old is not None)
        if old.state not in sources or now >= old.expires or not has_room(old, fragment):
            return Outcome(old, False)
        return self._put(old, fragments=old.fragments | {fragment})

    def launch(self, session_id: str, launch: LaunchRecord) -> Outcome:
        old = self._old(session_id)
        if old is None or not may_launch(old, launch.at):
            return Outcome(old, old is not None and launch.relay_token_hash in old.relay_token_hashes)
        slots = frozenset(self._slot(limit, session_id, launch) for limit in launch.limits)
        self.leases.update(dict.fromkeys(slots, (session_id, launch.lease)))
        return self._put(
            old,
            slots=slots,
            purge_at=launch.purge_at,
            state=RecordState.INVOKED,
            target=launch.target,
            relay_token_hashes=old.relay_token_hashes | {launch.relay_token_hash},
            resume_token_hashes=old.resume_token_hashes | {launch.resume_token_hash},
            invoked_at=launch.at,
            launch_lost_at=None,
        )

    def short_messages(self, now: float) -> bool:
        self._read()
        return now < self.short_until

    def note_short_messages(self, now: float, until: float) -> None:
        self._write()
        if now >= self.short_until:
            self.short_until = until

    def claim(self, claim: Claim) -> RecordState:
        old = self._old(claim.session)
        refusal = claim_refusal(old, claim)
        if old is None or refusal is not None:
            own = Connection(claim.connection, claim.session, Role.RELAY, claim.epoch)
            if old is not None and old.instance == claim.instance and self._is_done(old, own):
                return old.state
            raise ClaimRefusedError(refusal or "no session", old)
        state = RecordState.ENDED if old.state is RecordState.ENDED else RecordState.OPEN
        self._put(
            old,
            state=state,
            relay=Side(claim.connection, claim.epoch, old.relay.connection),
            instance=claim.instance,
            expires=claim.expires if old.instance is None else old.expires,
            claimed_at=claim.at if old.claimed_at is None else old.claimed_at,
            fragments=frozenset(),
        )
        self.connections[claim.connection] = Connection(
            claim.connection, claim.session, Role.RELAY, claim.epoch
        )
        return state

    def resume(self, resume: Resume) -> RecordState:
        old = self._old(resume.session)
        refusal = resume_refusal(old, resume)
        if old is None or refusal is not None:
            own = Connection(resume.connection, resume.session, Role.DIALER, resume.epoch)
            if old is not None and self._is_done(old, own):
                return old.state
            raise ClaimRefusedError(refusal or "no session", old)
        self._put(old, dialer=Side(resume.connection, resume.epoch, old.dialer.connection))
        self.connections[resume.connection] = Connection(
            resume.connection, resume.session, Role.DIALER, resume.epoch
        )
        return old.state

    def _is_done(self, old: SessionRecord, own: Connection) -> bool:
        side = old.side(own.role)
        forgotten = side.connection is None and self.connections.get(own.id) == own
        return side.epoch == own.epoch and (side.connection == own.id or forgotten)

    def restore(self, connection: Connection) -> Outcome:
        old = self._old(connection.session)
        if old is None or not may_restore(old, connection):
            return Outcome(old, old is not None and old.side(connection.role).connection == connection.id)
        return self._put(
            old, **{connection.role.value: replace(old.side(connection.role), connection=connection.id)}
        )

    def clear(self, session_id: str, role: Role, connection_id: str, epoch: int, at: float) -> Outcome:
        old = self._old(session_id)
        if old is None:
            return Outcome(None, False)
        side = old.side(role)
        if side.connection != connection_id:
            return Outcome(old, side.connection is None and side.epoch == epoch)
        return self._put(old, **{role.value: replace(side, connection=None, left=at)})

    def end(self, session_id: str, ending: EndRecord, step: RecordStep) -> Outcome:
        old = self._old(session_id)
        if old is not None and old.ending is not None:
            if (old.ending.reporter, ending.reporter) == (Role.DIALER, Role.RELAY):
                first = old.ending
                counted = replace(
                    first,
                    dialer_messages=ending.dialer_messages,
                    relay_messages=ending.relay_messages,
                    reporter=ending.reporter,
                    carried=ending.carried,
                    connections=ending.connections,
                )
                return Outcome(self._put(old, ending=counted).session, False)
            return Outcome(old, old.ending.by == ending.by)
        if old is None or old.state not in TRANSITIONS[step].sources:
            return Outcome(old, False)
        kept = old.purge_at if step is RecordStep.CHECK else int(ending.at + RECORD_TIME)
        return self._put(old, state=RecordState.ENDED, ending=ending, fragments=frozenset(), purge_at=kept)

    def note_connections(self, session_id: str, counts: Connections) -> Outcome:
        old = self._old(session_id)
        if old is None or old.state not in TRANSITIONS[RecordStep.COUNT].sources:
            return Outcome(old, False)
        if old.connections is not None and old.connections.opened > counts.opened:
            return Outcome(old, False)
        return self._put(old, connections=counts)

    def note_record(self, session_id: str, by: str) -> bool:
        return self._old(session_id) is not None and self.recorded.setdefault(session_id, by) == by

    def in_use(self, limit: Limit, now: float) -> int:
        self._read()
        return len([name for name in limit.slots if self._taken(name, now)])

    def release(self, session: SessionRecord, until: float) -> None:
        for name in session.slots:
            holder, expires = self.leases[name]
            if holder == session.id:
                self.leases[name] = (holder, min(expires, until))

    def desert(self, session: SessionRecord, until: float) -> None:
        old = self._old(session.id)
        if old is None or old.state is not RecordState.OPEN or not old.slots:
            return
        held = all(self.leases[name][0] == old.id for name in old.slots)
        if held and old.relay.connection is None and old.relay.epoch == session.relay.epoch:
            self._put(old, slots_until=until)
            self.leases.update(dict.fromkeys(old.slots, (old.id, until)))

    def renew(self, session: SessionRecord) -> bool:
        old = self._old(session.id)
        if old is None or old.state is not RecordState.OPEN or old.relay.epoch != session.relay.epoch:
            return True
        if any(self.leases[name][0] != old.id for name in old.slots):
            return False
        self.leases.update(dict.fromkeys(old.slots, (old.id, old.expires)))
        self._put(old, slots_until=None)
        return True

    def _slot(self, limit: Limit, session_id: str, launch: LaunchRecord) -> str:
        for name in [*sorted(launch.held), *limit.slots]:
            if name in limit.slots and not self._taken(name, launch.at, session_id):
                return name
        raise LimitReachedError(f"{limit} reached")

    def _taken(self, name: str, now: float, session_id: str | None = None) -> bool:
        holder, expires = self.leases.get(name, ("", 0.0))
        return expires > now and holder != session_id

    def _put(self, old: SessionRecord, **changes: Any) -> Outcome:
        new = replace(old, **changes)
        self.sessions[old.id] = new
        return Outcome(new, True)

    def _old(self, session_id: str) -> SessionRecord | None:
        self._write()
        return self.sessions.get(session_id)

    def _read(self) -> None:
        self.reads += 1
        self._check()

    def _write(self) -> None:
        self.writes += 1
        self._check()

    def _check(self) -> None:
        if self.down:
            raise StoreError("the fake store is down")


class FakeLink:
    """:class:`ports.PeerLink` that keeps what is posted.

    Attributes:
        posts: (connection, text), in order.
        gone: Connections that answer 410.
        untrue: Connections that answer 410 so many times though they are there.
        busy: Connections that answer 429.
        too_large: Connections that answer 413.
        deleted: Connections that were closed, in order.
        tries: Every connection that a post was tried to, refused ones too.
    """

    def __init__(self) -> None:
        self.posts: list[tuple[str, bytes]] = []
        self.gone: set[str] = set()
        self.untrue: dict[str, int] = {}
        self.busy: set[str] = set()
        self.too_large: set[str] = set()
        self.deleted: list[str] = []
        self.tries: list[str] = []

    def post(self, connection_id: str, message: bytes) -> None:
        self.tries.append(connection_id)
        if connection_id in self.gone:
            raise PeerGoneError("gone")
        if self.untrue.get(connection_id, 0) > 0:
            self.untrue[connection_id] -= 1
            raise PeerGoneError("gone, it says")
        if connection_id in self.busy:
            raise PeerBusyError("busy")
        if connection_id in self.too_large:
            raise MessageTooLargeError("status 413")
        self.posts.append((connection_id, message))

    def delete(self, connection_id: str) -> None:
        if connection_id in self.busy:
            raise PeerBusyError("busy")
        self.deleted.append(connection_id)

    def take(self) -> list[tuple[str, Frame]]:
        """What was posted since the last call, decoded."""
        posts, self.posts = self.posts, []
        return [(connection, decode(text)) for connection, text in posts]


class FakeLauncher:
    """:class:`ports.RelayLauncher` that keeps the events, as Lambda would get them."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.fails = False

    def launch(self, event: Mapping[str, Any]) -> None:
        if self.fails:
            raise LaunchError("no concurrency left")
        self.events.append(json.loads(json.dumps(event)))
