"""The session item: its fields, its states, and which step is allowed when.

The store decides, by conditional writes. From which states a step is allowed is data here, of which its
conditions are made; what they ask beside the state stands there, in DynamoDB's expressions. The predicates
below decide nothing: ``may_launch`` and ``may_restore`` save a write that would fail, and ``has_room``,
``claim_refusal`` and ``resume_refusal`` say why one did. (One form for both would need a language of
conditions, with an interpreter, between the code and the writes that everything rests on.)

Times are wall-clock seconds since 1970 UTC (containers share no other clock).

Source: docs/protocol.md sections 3 to 6.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from emissary_lib.bridge.limits import Limit
from emissary_lib.protocol.codes import MEANINGS, Code
from emissary_lib.protocol.constants import (
    CLOCK_SKEW,
    FRAGMENT_OVERHEAD,
    MAX_OPENING_TOTAL,
    OPENING_TIME,
    RELAUNCH_AFTER,
    VERSION,
)
from emissary_lib.protocol.record import Record, hidden, replace
from emissary_lib.protocol.role import Role
from emissary_lib.protocol.targets.allow_list import SHARED_TARGET
from emissary_lib.protocol.wire.payloads import Connections

#: How long a relay can live, in seconds, unless the stack says otherwise (RelayTimeout). Counted from its
#: claim it is never too short: it started before.
RELAY_TIME: Final = 900.0

#: The most that a stack can say, in seconds: Lambda's longest invocation of a function that is invoked as the
#: relay is. Not every region may have it. Source: Lambda's API (botocore 1.44.7), CreateFunction, "Timeout";
#: 900 s until November 2026.
LONGEST_RELAY_TIME: Final = 1800.0

#: How long ``$connect`` may take to answer, in seconds: its timeout in template.yaml.
CONNECT_TIME: Final = 20.0

#: After so many seconds the relay of a session that ended unclaimed has returned, whatever is heard of it: it
#: may have started late, has tried its target for ten seconds at most, and was refused its claim.
LAUNCH_MARGIN: Final = 30.0

#: How much longer than the grace a relay that has lost its WebSocket, and hears of the end when it is back or
#: gives up, can take to return, in seconds.
LEAVE_MARGIN: Final = 30.0

#: How long the facts of a session are kept after its end, in seconds: who was in, when, to where
#: (docs/operations.md). If nobody notes the end, after the last moment at which it can have ended.
RECORD_TIME: Final = 7 * 86_400.0

#: How long items are kept beyond the last moment at which the protocol needs them, in seconds. A burnt nonce
#: has to outlive every clock that would still accept its date.
PURGE_MARGIN: Final = 3600.0


#: How the id begins of a request by which an operator ended a session (``emissary sessions kill``).
OPERATOR: Final = "operator "


class RecordState(enum.Enum):
    """OPENING: the SOCKS5 exchange. INVOKED: a relay is launched. OPEN: it has claimed. ENDED: over."""

    OPENING = "OPENING"
    INVOKED = "INVOKED"
    OPEN = "OPEN"
    ENDED = "ENDED"


class RecordStep(enum.Enum):
    """What is done to a session."""

    ADD_FRAGMENT = "add a fragment"
    LAUNCH = "launch"
    LOSE = "note that the launch failed"
    CLAIM = "claim"
    RESUME = "resume"
    REVISIT = "hear how it ended"
    CHECK = "ask how the bridge is"
    REFUSE = "refuse for a limit"
    RESTORE = "restore"
    COUNT = "count its connections"
    ABANDON = "abandon"
    END = "end"


class Transition(Record):
    """From which states a step is allowed, and where it leads (None: stays)."""

    sources: frozenset[RecordState]
    to: RecordState | None


_BEFORE_CLAIM: Final = frozenset({RecordState.OPENING, RecordState.INVOKED})

#: How a session begins: with its opening yet to come, or launched at the door (docs/protocol.md section 3.7).
BEGINNINGS: Final[Mapping[RecordState, str]] = {
    RecordState.OPENING: "admit",
    RecordState.INVOKED: "admit and launch",
}

#: Every change of state there is.
TRANSITIONS: Final[Mapping[RecordStep, Transition]] = {
    RecordStep.ADD_FRAGMENT: Transition(_BEFORE_CLAIM, None),
    RecordStep.LAUNCH: Transition(_BEFORE_CLAIM, RecordState.INVOKED),
    RecordStep.LOSE: Transition(frozenset({RecordState.INVOKED}), None),
    RecordStep.CLAIM: Transition(frozenset({RecordState.INVOKED, RecordState.OPEN}), RecordState.OPEN),
    RecordStep.RESUME: Transition(frozenset({RecordState.OPEN}), None),
    RecordStep.REVISIT: Transition(frozenset({RecordState.ENDED}), None),
    RecordStep.RESTORE: Transition(frozenset({RecordState.OPEN}), None),
    RecordStep.COUNT: Transition(frozenset({RecordState.OPEN}), None),
    RecordStep.CHECK: Transition(frozenset({RecordState.OPENING}), RecordState.ENDED),
    RecordStep.REFUSE: Transition(frozenset({RecordState.OPENING}), RecordState.ENDED),
    RecordStep.ABANDON: Transition(_BEFORE_CLAIM, RecordState.ENDED),
    RecordStep.END: Transition(frozenset(RecordState) - {RecordState.ENDED}, RecordState.ENDED),
}


class Fragment(Record):
    """A piece of the dialer's stream, from one OPENING message."""

    offset: int
    payload: bytes = hidden()

    @property
    def weight(self) -> int:
        """What it counts of :data:`MAX_OPENING_TOTAL`; so many bytes, and a third more, are in the item."""
        return len(self.payload) + FRAGMENT_OVERHEAD


class Side(Record):
    """One side of a session.

    Attributes:
        connection: Its current connection, or None while it has none.
        epoch: Of its newest connection.
        previous: The connection that the newest one took the place of, if it was still there; to be closed.
        left: When a connection of its was last found to be gone. It says nothing while there is one. Two that
            differ in it alone are equal.
    """

    connection: str | None
    epoch: int
    previous: str | None = None
    left: float | None = None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Side):
            return NotImplemented
        return self._values()[:-1] == other._values()[:-1]

    def __hash__(self) -> int:
        return hash(self._values()[:-1])


class Loss(NamedTuple):
    """Why and when a session ended that nobody has ended."""

    code: Code
    at: float


class Connection(Record):
    """Whose connection it is: the ``C#`` item. It never changes once written."""

    id: str
    session: str
    role: Role
    epoch: int


class LaunchRecord(Record):
    """What a launch writes; ``relay_token_hash`` tells whose launch it is.

    Attributes:
        limits: Each takes a slot.
        held: Slots that an earlier launch of this session has taken.
        relay_time: How long a relay of the stack can live, in seconds.
    """

    target: str
    relay_token_hash: str
    resume_token_hash: str
    at: float
    limits: tuple[Limit, ...] = ()
    held: frozenset[str] = frozenset()
    relay_time: float = RELAY_TIME

    @property
    def lease(self) -> float:
        """Until when the session's slots are its own: no relay of this launch can live longer."""
        return self.at + OPENING_TIME + self.relay_time

    @property
    def purge_at(self) -> int:
        """When the table may delete the session if nobody ever notes its end."""
        return int(self.lease + RECORD_TIME)


class Claim(Record):
    """What a relay shows and what its claim writes.

    Attributes:
        relay_time: How long a relay of the stack can live, in seconds.
    """

    session: str
    connection: str
    token_hash: str = hidden()
    instance: str
    epoch: int
    at: float
    relay_time: float = RELAY_TIME

    @property
    def expires(self) -> float:
        """Until when the session may live, if this is its first claim."""
        return self.at + self.relay_time


class Resume(Record):
    """What a dialer that comes back shows, its MAC having been checked, and what its resume writes."""

    session: str
    connection: str
    key_id: int
    token_hash: str = hidden()
    epoch: int
    at: float


class EndRecord(Record):
    """Why and where a session ended.

    Attributes:
        code: The reason.
        dialer_final: Final offset of the dialer's stream, as far as known.
        relay_final: Final offset of the relay's stream, as far as known.
        by: Id of the request that ended it, so that a repeated write knows itself again.
        at: When.
        dialer_messages: Messages the dialer has sent, as far as known.
        relay_messages: Messages the relay has sent, as far as known.
        reason: What there is to say beyond the code's meaning.
        reporter: The client whose figures these are; None if no client has reported any.
        carried: Final offsets of the dialer's and the relay's stream as the relay has reported them, if it
            has: for the record. Clients are told those of the first report, whoever's that was.
        connections: How many connections the relay of a shared session says that it has carried.
    """

    code: Code
    dialer_final: int
    relay_final: int
    by: str
    at: float
    dialer_messages: int = 0
    relay_messages: int = 0
    reason: str = ""
    reporter: Role | None = None
    carried: tuple[int, int] | None = None
    connections: int | None = None

    @property
    def text(self) -> str:
        """Why, in words."""
        return self.reason or MEANINGS[self.code]

    @property
    def reported_by(self) -> str:
        """``dialer``, ``relay`` or ``bridge``: whose figures these are."""
        return self.reporter.value if self.reporter else "bridge"

    @property
    def by_operator(self) -> bool:
        """Whether an operator's command wrote it, so that no function has recorded it."""
        return self.by.startswith(OPERATOR)


class SessionRecord(Record):
    """One session as stored.

    Attributes:
        id: Lower-case hexadecimal SHA-256 of the nonce.
        key_id: The key that signed the connect.
        nonce: The dialer's nonce, 32 bytes.
        date: The dialer's date, exactly as signed.
        host: The API's host, as signed.
        source: Address that the dialer came from.
        started: When it was let in.
        expires: Until when it may live: the opening's deadline, from the claim on the relay's.
        claimed_at: When a relay first claimed it.
        slots_until: When its slots are free if its relay, which has lost its connection, does not come back.
        purge_at: When the table may delete it.
        instance: The relay invocation that holds it, once claimed.
        relay_token_hashes: Of all its launches: any of their relays may claim it.
        resume_token_hashes: Of all its launches: the dialer has that of the relay that claimed.
        invoked_at: When the relay was last launched.
        launch_lost_at: When it was launched last, if it is known that the relay was not invoked.
        slots: Names of the slots that it has taken, or had.
        connections: What the relay of a shared session has last told of its connections while it was open.
    """

    id: str
    key_id: int
    nonce: bytes = hidden()
    date: str
    host: str
    started: float
    expires: float
    purge_at: int
    state: RecordState = RecordState.OPENING
    version: int = VERSION
    dialer: Side = Side(None, 1)
    relay: Side = Side(None, 0)
    instance: str | None = None
    relay_token_hashes: frozenset[str] = hidden(default=frozenset())
    resume_token_hashes: frozenset[str] = hidden(default=frozenset())
    fragments: frozenset[Fragment] = hidden(default=frozenset())
    target: str | None = None
    invoked_at: float | None = None
    ending: EndRecord | None = None
    slots: frozenset[str] = frozenset()
    source: str = ""
    claimed_at: float | None = None
    slots_until: float | None = None
    connections: Connections | None = None
    launch_lost_at: float | None = None

    @property
    def generation(self) -> int:
        """Generation of the current pair of connections (docs/protocol.md section 5)."""
        return (self.dialer.epoch + self.relay.epoch) & 0xFFFF

    @property
    def shared(self) -> bool:
        """Whether it is for many connections, each to a target of its own (docs/protocol.md section 11)."""
        return self.target == str(SHARED_TARGET)

    @property
    def connections_opened(self) -> int | None:
        """How many connections it has carried; None if its relay has told nothing, or it is not shared."""
        if self.ending is not None and self.ending.connections is not None:
            return self.ending.connections
        return None if self.connections is None else self.connections.opened

    def side(self, role: Role) -> Side:
        """The part of the record that is of one end's connections."""
        return self.dialer if role is Role.DIALER else self.relay

    def arriving(self, role: Role, now: float) -> bool:
        """Whether a side's connection may stand here before it exists: then a 410 says nothing.

        A claim is written before ``$connect`` answers, and until then a post to the relay is answered 410. A
        side that comes back asks by RESUME, which puts that right; a relay that has just claimed does not. So
        it is with the dialer of a session that was launched at the door. A later launch shows that it is
        there: that takes a message of its.
        """
        if self.side(role).epoch != 1:
            return False
        at_the_door = self.started if self.invoked_at == self.started else None
        since = self.claimed_at if role is Role.RELAY else at_the_door
        return since is not None and now < since + CONNECT_TIME

    def loss(self, now: float) -> Loss | None:
        """Why and when the session was lost though nobody has ended it, or None while it may live.

        "Lost" is no state: nothing watches over sessions, and whoever reads one that is past its time ends
        it. So one whose two clients died without a word stays OPEN until then, or until it is purged. If both
        connections had gone by then, the one that went first is the reason, else the deadline.
        """
        if self.state is RecordState.ENDED or now <= self.expires:
            return None
        if self.state is not RecordState.OPEN:
            return Loss(Code.OPENING_EXPIRED, self.expires)
        deserted = self.deserted
        if deserted is not None and deserted.at <= self.expires:
            return deserted
        return Loss(Code.RELAY_DEADLINE, self.expires)

    @property
    def deserted(self) -> Loss | None:
        """What it comes to if neither side comes back; None while one is here, or if more is not known."""
        if self.dialer.connection is not None or self.relay.connection is not None:
            return None
        if self.dialer.left is None or self.relay.left is None:
            return None  # of a deployment that did not note it
        first = Role.DIALER if self.dialer.left <= self.relay.left else Role.RELAY
        return Loss(first.gone, max(self.dialer.left, self.relay.left))


def lease_left(session: SessionRecord, now: float, grace: float) -> float:
    """Until when a relay of the session may run though nothing more is heard of it.

    For a session that has ended, or that both clients have lost: until then its slots are its own.

    Args:
        session: As it is now.
        now: The time.
        grace: How long a relay without its WebSocket may come back, in seconds.
    """
    if session.instance is None:
        return (now if session.invoked_at is None else session.invoked_at) + LAUNCH_MARGIN
    left = session.relay.left if session.relay.connection is None else None
    return min((now if left is None else left) + grace + LEAVE_MARGIN, session.expires)


def lease_after_relay(session: SessionRecord) -> float:
    """Until when slots of an ended session are its own once its relay has left: not at all, which is 0.

    But if it was launched more than once, a relay may still be on its way, to be refused. One that Lambda
    starts besides for the same launch may be, too; of that one nobody knows, and it is not waited for.
    """
    if len(session.relay_token_hashes) < 2 or session.invoked_at is None:
        return 0.0
    return session.invoked_at + LAUNCH_MARGIN


def purge_time(*, date: float, now: float) -> int:
    """When the items of a session that begins now may be deleted, in whole seconds since 1970 UTC.

    Args:
        date: The date the dialer signed; a clock that is late still accepts it CLOCK_SKEW after it.
        now: The time of the connect.
    """
    return int(max(date + CLOCK_SKEW, now + OPENING_TIME + LONGEST_RELAY_TIME) + PURGE_MARGIN)


def may_launch(session: SessionRecord, now: float) -> bool:
    """Whether a relay is to be launched: the first, or another because the last one did not claim."""
    if session.state not in TRANSITIONS[RecordStep.LAUNCH].sources or now >= session.expires:
        return False
    if session.invoked_at is None or session.launch_lost_at is not None:
        return True
    return session.invoked_at < now - RELAUNCH_AFTER


def launched_at_the_door(session: SessionRecord, launch: LaunchRecord, slots: Iterable[str]) -> SessionRecord:
    """A session that is launched as it is made, with the slots that it takes by that."""
    return replace(
        session,
        state=RecordState.INVOKED,
        target=launch.target,
        invoked_at=launch.at,
        purge_at=launch.purge_at,
        slots=frozenset(slots),
        relay_token_hashes=frozenset({launch.relay_token_hash}),
        resume_token_hashes=frozenset({launch.resume_token_hash}),
    )


def has_room(session: SessionRecord, fragment: Fragment) -> bool:
    """Whether an opening may have a fragment; one that it has already takes no room."""
    used = sum(each.weight for each in session.fragments)
    return fragment in session.fragments or used + fragment.weight <= MAX_OPENING_TOTAL


def claim_refusal(session: SessionRecord | None, claim: Claim) -> str | None:
    """Why a claim is refused, for our log; None if it is granted."""
    if session is None:
        return "no such session"
    if _ended_unclaimed(session) or not _may_come(session, RecordStep.CLAIM):
        return f"the session is {session.state.value}"
    if claim.token_hash not in session.relay_token_hashes:
        return "the token is of no launch of the session"
    if session.instance not in (None, claim.instance):
        return "another instance holds the session"
    if claim.epoch <= session.relay.epoch:
        return f"epoch {claim.epoch} is not above {session.relay.epoch}"
    return _expiry(session, claim.at)


def came_too_late(session: SessionRecord, claim: Claim) -> bool:
    """Whether a refused claim is of a relay that was launched, and whose session has ended unclaimed.

    Nobody can claim it any more, so that this relay leaves: what its place was kept for.
    """
    return _ended_unclaimed(session) and claim.token_hash in session.relay_token_hashes


def resume_refusal(session: SessionRecord | None, resume: Resume) -> str | None:
    """Why a dialer's resume is refused, for our log; None if it is granted."""
    if session is None:
        return "no such session"
    if not _may_come(session, RecordStep.RESUME):
        return f"the session is {session.state.value}"
    if session.key_id != resume.key_id:
        return "another key opened the session"
    if resume.token_hash not in session.resume_token_hashes:
        return "the token is of no launch of the session"
    if resume.epoch <= session.dialer.epoch:
        return f"epoch {resume.epoch} is not above {session.dialer.epoch}"
    return _expiry(session, resume.at)


def _ended_unclaimed(session: SessionRecord) -> bool:
    return session.state is RecordState.ENDED and session.instance is None


def _may_come(session: SessionRecord, step: RecordStep) -> bool:
    """Whether a client may connect by this step or, where the session has ended, only hear that."""
    return any(session.state in TRANSITIONS[each].sources for each in (step, RecordStep.REVISIT))


def _expiry(session: SessionRecord, at: float) -> str | None:
    # Of a session that has ended, its own client may ask as long as the item is there.
    expired = session.state is not RecordState.ENDED and at >= session.expires
    return "the session has expired" if expired else None


def may_restore(session: SessionRecord, connection: Connection) -> bool:
    """Whether a connection that was forgotten is its side's newest, and none has taken its place."""
    side = session.side(connection.role)
    return (
        session.state in TRANSITIONS[RecordStep.RESTORE].sources
        and side.connection is None
        and side.epoch == connection.epoch
    )
