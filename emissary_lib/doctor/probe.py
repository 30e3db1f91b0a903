"""A session walked step by step, by the very code that dials: see :class:`emissary_lib.doctor.ports.Way`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from emissary_lib.client.endpoint import Endpoint
from emissary_lib.client.handshake import FAREWELL, Door, Exchange, knock, pass_the_door
from emissary_lib.exceptions import ClosedError, EmissaryError
from emissary_lib.protocol.auth.keys import Key
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.opening import socks5
from emissary_lib.protocol.opening.banner import Banner
from emissary_lib.protocol.opening.exchange import OpeningReader, opening_bytes
from emissary_lib.protocol.session.session import Session, SessionConfig
from emissary_lib.protocol.session.states import Side, State
from emissary_lib.protocol.targets.allow_list import Target
from emissary_lib.transport.deadline import Deadline

T = TypeVar("T")

#: A PING whose answer is not there by then is repeated, in seconds: messages may be lost.
_PING_REPEAT: Final = 2.0


class SessionWay:
    """See :class:`emissary_lib.doctor.ports.Way`.

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
        self._door: Door | None = None
        self._session: Session | None = None
        self._exchange: Exchange | None = None
        self._greeted = b""

    @property
    def gateway_errors(self) -> int:
        return self._session.counters.gateway_errors if self._session else 0

    @property
    def relay_spoke(self) -> bool:
        return self._exchange is not None and self._exchange.parameters is not None

    def knock(self, timeout: float) -> None:
        self._begin(knock(self._endpoint, self._key, Deadline(timeout)))

    def enter(self, timeout: float) -> None:
        self._begin(pass_the_door(self._endpoint, self._key, Deadline(timeout)))

    def _begin(self, door: Door) -> None:
        self._door = door
        self._session = Session(Side.CLIENT, SessionConfig(), now=self._now())
        reader = OpeningReader(self._key, door.date, door.nonce, self._endpoint.host)
        gateway = Target(*self._endpoint.address)  # nothing farther away is being dialled yet
        self._exchange = Exchange(gateway, self._session, door.transport, reader)

    def prove(self, timeout: float) -> Banner:
        session, exchange = self._opened
        self._greeted = socks5.greeting()
        session.send_data(self._greeted)
        return exchange.prove(Deadline(timeout))

    def dial(self, target: Target, timeout: float) -> None:
        session, exchange = self._opened
        assert self._door
        whole = opening_bytes(key=self._key, date=self._door.date, nonce=self._door.nonce, target=target)
        exchange.target = target
        session.send_data(whole[len(self._greeted) :])
        exchange.run(Deadline(timeout))

    def ping(self, timeout: float) -> None:
        session, exchange = self._opened
        deadline, before = Deadline(timeout), session.counters.pongs
        while session.counters.pongs == before:
            session.ping()
            patience = Deadline(deadline.cap(_PING_REPEAT))
            try:
                while session.counters.pongs == before:
                    exchange.turn(patience)
            except TimeoutError:
                if deadline.passed():
                    raise

    def converse(self, request: bytes, read: Callable[[bytes, bool], T | None], timeout: float) -> T:
        session, exchange = self._opened
        deadline, received = Deadline(timeout), b""
        session.send_data(request)
        while True:
            while view := session.peek():
                data = bytes(view)
                received += data
                session.consume(len(data), self._now())
            made = read(received, session.receive_ended)
            if made is not None:
                return made
            exchange.turn(deadline)

    def close(self) -> None:
        door, self._door = self._door, None
        if door is None or self._session is None or self._exchange is None:
            return
        try:
            self._end(self._session, self._exchange)
        except (EmissaryError, TimeoutError):
            pass  # it is over in any case, and what mattered has been told
        finally:
            door.transport.close()
            door.transport.release()

    def _end(self, session: Session, exchange: Exchange) -> None:
        deadline = Deadline(FAREWELL)  # for the target to end its stream too; the bridge gets its own
        if session.state is State.OPEN:  # no target likes a reset
            session.send_eof()
            try:
                while not _over(session):
                    session.consume(len(session.peek()), self._now())
                    exchange.turn(deadline)
            except TimeoutError:
                pass  # the target keeps its side open
        exchange.give_up(Code.DIALER_RESET, "the doctor has seen enough", Deadline(FAREWELL))

    @property
    def _opened(self) -> tuple[Session, Exchange]:
        if self._session is None or self._exchange is None or self._door is None:
            raise ClosedError("this way is not open: knock first")
        return self._session, self._exchange


def _over(session: Session) -> bool:
    return session.state is State.ENDED
