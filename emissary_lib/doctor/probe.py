"""A session taken step by step, by the very code that dials: see :class:`emissary_lib.doctor.ports.Probe`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from emissary_lib.client.endpoint import Endpoint
from emissary_lib.client.handshake import GIVE_UP_WAIT, Handshake, Upgrade, connect_once, connect_with_retry
from emissary_lib.exceptions import ClosedError, EmissaryError
from emissary_lib.protocol.auth.keys import Key
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.opening import socks5
from emissary_lib.protocol.opening.banner import Banner
from emissary_lib.protocol.opening.exchange import OpeningReader, opening_bytes
from emissary_lib.protocol.role import Role
from emissary_lib.protocol.session.session import Session, SessionConfig
from emissary_lib.protocol.session.states import State
from emissary_lib.protocol.targets.allow_list import Target
from emissary_lib.transport.deadline import Deadline
from emissary_lib.transport.websocket import OriginalServerError

T = TypeVar("T")

#: A PING whose answer is not there by then is repeated, in seconds: messages may be lost.
_PING_REPEAT: Final = 2.0


class SessionProbe:
    """See :class:`emissary_lib.doctor.ports.Probe`.

    Args:
        endpoint: The gateway.
        key: The key to sign with.
        now: A monotonic clock, as ``time.monotonic``.

    Thread safety: none.
    """

    def __init__(self, endpoint: Endpoint, key: Key, now: Callable[[], float]) -> None:
        self._endpoint = endpoint
        self._key = key
        self._now = now
        self._upgrade: Upgrade | None = None
        self._session: Session | None = None
        self._handshake: Handshake | None = None
        self._sent = b""

    @property
    def gateway_errors(self) -> int:
        """Error messages of the gateway in this session; 0 before there is one."""
        return self._session.counters.gateway_errors if self._session else 0

    @property
    def relay_spoke(self) -> bool:
        """Whether OPENED has come."""
        return self._handshake is not None and self._handshake.parameters is not None

    def connect_once(self, timeout: float) -> None:
        """Connect, with one attempt."""
        try:
            upgrade = connect_once(self._endpoint, self._key, Deadline(timeout), original=True)
        except OriginalServerError as exc:
            exc.stream.shutdown()
            exc.stream.close()
            raise
        self._begin(upgrade)

    def connect_with_retry(self, timeout: float) -> None:
        """Connect, with as many attempts as the time allows."""
        self._begin(connect_with_retry(self._endpoint, self._key, Deadline(timeout)))

    def _begin(self, upgrade: Upgrade) -> None:
        self._upgrade = upgrade
        self._session = Session(Role.DIALER, SessionConfig(), now=self._now())
        reader = OpeningReader(self._key, upgrade.date, upgrade.nonce, self._endpoint.host)
        gateway = Target(*self._endpoint.address)  # nothing farther away is being dialled yet
        self._handshake = Handshake(gateway, self._session, upgrade.transport, reader)

    def prove(self, timeout: float) -> Banner:
        """Send a greeting alone: the bridge answers it, without a relay."""
        session, handshake = self._opened
        self._sent = socks5.greeting()
        session.send_data(self._sent)
        return handshake.prove(Deadline(timeout))

    def dial(self, target: Target, timeout: float) -> None:
        """Send the rest of the opening, or all of it, and wait for the relay's outcome."""
        session, handshake = self._opened
        assert self._upgrade
        whole = opening_bytes(
            key=self._key, date=self._upgrade.date, nonce=self._upgrade.nonce, target=target
        )
        handshake.target = target
        session.send_data(whole[len(self._sent) :])
        handshake.run(Deadline(timeout))

    def ping(self, timeout: float) -> None:
        """Wait for one more PONG; a PING that may be lost is repeated."""
        session, handshake = self._opened
        deadline, before = Deadline(timeout), session.counters.pongs
        while session.counters.pongs == before:
            session.ping()
            patience = deadline.within(_PING_REPEAT)
            try:
                while session.counters.pongs == before:
                    handshake.turn(patience)
            except TimeoutError:
                if deadline.passed():
                    raise

    def request(self, data: bytes, read: Callable[[bytes, bool], T | None], timeout: float) -> T:
        """Send, and give ``read`` all that has come after each message."""
        session, handshake = self._opened
        deadline, received = Deadline(timeout), b""
        session.send_data(data)
        while True:
            while view := session.peek():
                data = bytes(view)
                received += data
                session.consume(len(data), self._now())
            made = read(received, session.receive_ended)
            if made is not None:
                return made
            handshake.turn(deadline)

    def close(self) -> None:
        """End the session in good order, and give its WebSocket back. Idempotent."""
        upgrade, self._upgrade = self._upgrade, None
        if upgrade is None or self._session is None or self._handshake is None:
            return
        try:
            self._end(self._session, self._handshake)
        except (EmissaryError, TimeoutError):
            pass  # it is over in any case, and what mattered has been reported
        finally:
            upgrade.transport.close()
            upgrade.transport.release()

    def _end(self, session: Session, handshake: Handshake) -> None:
        deadline = Deadline(GIVE_UP_WAIT)  # for the target to end its stream too; the bridge gets its own
        if session.state is State.OPEN:  # no target likes a reset
            session.send_eof()
            try:
                while not _over(session):
                    session.consume(len(session.peek()), self._now())
                    handshake.turn(deadline)
            except TimeoutError:
                pass  # the target keeps its side open
        handshake.give_up(Code.DIALER_RESET, "the doctor is done", Deadline(GIVE_UP_WAIT))

    @property
    def _opened(self) -> tuple[Session, Handshake]:
        if self._session is None or self._handshake is None or self._upgrade is None:
            raise ClosedError("this session is not open: connect first")
        return self._session, self._handshake


def _over(session: Session) -> bool:
    return session.state is State.ENDED
