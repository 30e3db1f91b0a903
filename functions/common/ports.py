"""What the use cases need from outside, as interfaces; ``adapters`` has the real ones, tests have fakes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from emissary_lib.bridge.limits import Limit
from emissary_lib.bridge.session import (
    Claim,
    Connection,
    EndRecord,
    Fragment,
    LaunchRecord,
    RecordState,
    RecordStep,
    Resume,
    SessionRecord,
)
from emissary_lib.protocol.auth.keys import KeyRing
from emissary_lib.protocol.role import Role
from emissary_lib.protocol.wire.payloads import Connections

#: Wall clock: seconds since 1970 UTC.
Clock = Callable[[], float]

#: Fresh random bytes, as many as asked for, fit for secrets.
Entropy = Callable[[int], bytes]


class Outcome(NamedTuple):
    """What a conditional write did.

    Attributes:
        session: The session as it is now; None if there is none.
        done: Whether the write took place. A repeated write that finds its own work counts as done.
    """

    session: SessionRecord | None
    done: bool


class SessionStore(Protocol):
    """Sessions and connections. Every write is one atomic, conditional step; every read sees all of them.

    Every method may block for some seconds and raises :class:`StoreError` if the table cannot be reached.
    """

    def create(self, session: SessionRecord) -> None:
        """Write a new session and its dialer's connection; this burns the nonce.

        Raises:
            NonceBurntError: If the session exists.
        """

    def create_launched(self, session: SessionRecord, launch: LaunchRecord) -> SessionRecord:
        """As :meth:`create`, of a session that is launched by it, in one step (docs/protocol.md section 3.7).

        A slot of each of the launch's limits is taken with it.

        Returns:
            The session as it is now.

        Raises:
            NonceBurntError: If the session exists.
            LimitReachedError: A limit has no slot left; nothing was written.
        """

    def lose_launch(self, session_id: str, launch: LaunchRecord) -> None:
        """Note that the relay of a launch was not invoked, so that another need not wait.

        Nothing is done if the session was claimed, has ended, or was launched again.
        """

    def connection(self, connection_id: str) -> Connection | None:
        """Whose connection it is."""

    def session(self, session_id: str) -> SessionRecord | None:
        """The session as it is now."""

    def add_fragment(self, session_id: str, fragment: Fragment, now: float) -> Outcome:
        """Put one fragment into the opening's set, unless :func:`session.has_room` says no, or it is over."""

    def launch(self, session_id: str, launch: LaunchRecord) -> Outcome:
        """Go to INVOKED with fresh token hashes, under :func:`session.may_launch`.

        A slot of each of the launch's limits is taken with it.

        Raises:
            LimitReachedError: One of them has none left; the session is as it was.
        """

    def short_messages(self, now: float) -> bool:
        """Whether messages of more than one fragment were found not to pass, and that still counts."""

    def note_short_messages(self, now: float, until: float) -> None:
        """They do not, and that counts until then, in seconds since 1970 UTC; no longer where it is known."""

    def in_use(self, limit: Limit, now: float) -> int:
        """How many slots of a limit are taken."""

    def release(self, session: SessionRecord, until: float) -> None:
        """Let the slots that a session has taken be free at ``until``, 0 for now.

        Those that are free sooner, or that it does not hold any more, are let alone.
        """

    def desert(self, session: SessionRecord, until: float) -> None:
        """Lease the slots of an open session whose relay is gone until then only, and note that.

        Nothing is done if the relay has had a connection since the session was read.
        """

    def renew(self, session: SessionRecord) -> bool:
        """Take back, to the session's end, what :meth:`desert` gave: its relay is here again.

        Returns:
            False if another session has a slot by now.
        """

    def claim(self, claim: Claim) -> RecordState:
        """Go to OPEN with the relay's connection, and write that connection; forget the opening's fragments.

        Returns:
            The session's state: OPEN, or ENDED where that was so before. An ended session stays as it is but
            for that connection, on which the relay is told how it ended.

        Raises:
            ClaimRefusedError: See :func:`session.claim_refusal`. It has the session.
        """

    def resume(self, resume: Resume) -> RecordState:
        """Give the dialer a new connection, and write that connection.

        Returns:
            The session's state: OPEN or ENDED, as for :meth:`claim`.

        Raises:
            ClaimRefusedError: See :func:`session.resume_refusal`.
        """

    def restore(self, connection: Connection) -> Outcome:
        """Make a connection its side's current one again, under :func:`session.may_restore`."""

    def clear(self, session_id: str, role: Role, connection_id: str, epoch: int, at: float) -> Outcome:
        """Forget one side's connection, if it is still the current one, and note when that was."""

    def note_connections(self, session_id: str, counts: Connections) -> Outcome:
        """Note what the relay of an open session tells of its connections, unless it is older than the noted.

        Older is what tells of fewer that were ever opened.
        """

    def end(self, session_id: str, ending: EndRecord, step: RecordStep) -> Outcome:
        """Go to ENDED from the states that ``step`` (END, ABANDON, REFUSE or CHECK) allows.

        Where the dialer's report has ended it, the figures of the relay's take their place; that is not done
        by this.

        Forgets the opening's fragments, and keeps the rest for :data:`session.RECORD_TIME`, but after a
        CHECK.
        """

    def note_record(self, session_id: str, by: str) -> bool:
        """Note that the audit record of a session is being written.

        Args:
            session_id: The session.
            by: Who writes it, a name that no other invocation has.

        Returns:
            Whether it is for this one to write; False if another has noted it before.
        """


class PeerLink(Protocol):
    """API Gateway's callback side: posts to the WebSockets of one stage. Safe to use from several threads."""

    def post(self, connection_id: str, message: bytes) -> None:
        """Post one message; blocks until the gateway has answered, some seconds at most.

        Raises:
            PeerGoneError: No such connection.
            PeerBusyError: Throttled, or the client reads too slowly.
            PeerUnreachableError: Anything else.
        """

    def delete(self, connection_id: str) -> None:
        """Close a connection; one that is gone already is no error.

        Raises:
            PeerBusyError: Throttled.
            PeerUnreachableError: Anything else.
        """


class RelayLauncher(Protocol):
    """Starts relays."""

    def launch(self, event: Mapping[str, Any]) -> None:
        """Invoke the relay asynchronously; returns once Lambda has queued the event.

        Raises:
            LaunchError: Throttled, refused or unanswered; the relay may have been started all the same.
        """


class KeySource(Protocol):
    """Where the shared keys come from."""

    def keys(self, wanted: int) -> KeyRing:
        """The keys that are valid now.

        Args:
            wanted: The id of the key that is asked for. A source that remembers keys looks again, though
                seldom, if it does not know that one: it may be new.

        Raises:
            KeysUnavailableError: They cannot be had. May block for some seconds.
        """
