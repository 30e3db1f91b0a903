"""What the dialers of a soak do. Each function is one piece of work: one dial, and what it is for."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any, Final

import pg8000.dbapi

from emissary_lib import Dialer
from emissary_lib.client.dialer import DIAL_TIMEOUT
from emissary_lib.client.socket import TunnelSocket
from emissary_lib.exceptions import EmissaryError
from emissary_lib.protocol.auth.keys import Key
from emissary_lib.protocol.session.keepalive import KeepaliveTimes
from tests.soak.pattern import first_difference
from tests.soak.stats import MismatchError, Stats
from tests.soak.target import DONE, PIECE, Transfer, give
from tools.demo.postgres import Postgres

#: How long a side that has lost its WebSocket is waited for, in seconds; what is usual is 60
#: (docs/protocol.md 5.2), which is as long as all of a soak's end may take.
GRACE: Final = 15

#: Longest that a read or a write may wait, in seconds; more is a hang. A silent death is noticed within 18 s
#: (run.KEEPALIVE), reconnecting may take the grace, hearing of the peer once more as long; and while it
#: storms, one loss follows the other.
HANG: Final = 5.0 * GRACE

#: Longest dial, in seconds: what is usual.
DIAL: Final = DIAL_TIMEOUT

#: Connections that share a relay, at most, and how long it is kept without one, in seconds: so that some are
#: found by the next dial, and the last are over soon after the work is.
SHARING: Final = 6
KEPT: Final = 3.0

_said = threading.local()


@contextlib.contextmanager
def dialers_of_both_kinds(
    url: str, key: Key, keepalive: KeepaliveTimes, in_flight: int
) -> Iterator[list[Dialer]]:
    """Two dialers, one whose connections share relays and one whose do not; closed at the end of the block.

    Args:
        url: The gateway.
        key: The key to sign with.
        keepalive: Of both.
        in_flight: Messages in flight of each.
    """
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                Dialer(
                    url,
                    key,
                    keepalive=keepalive,
                    max_in_flight=in_flight,
                    connections_per_relay=connections,
                    relay_idle_seconds=KEPT,
                )
            )
            for connections in (1, SHARING)
        ]


@dataclass(frozen=True, slots=True)
class Context:
    """Where the work is done.

    Attributes:
        dialer: Through the local cloud.
        dialers: Of which each piece of work takes one; none: always ``dialer``.
        target: Address of the :class:`~tests.soak.target.Target`.
        postgres: The database, by its direct address.
        stats: Where to count.
        stop: Set when no more work is to begin.
        recent: Ids of the sessions that were opened last.
        environ: Variables with which the command reaches the same gateway.
    """

    dialer: Dialer
    target: tuple[str, int]
    postgres: Postgres
    stats: Stats
    stop: threading.Event
    recent: deque[str] = field(default_factory=lambda: deque(maxlen=3))
    environ: Mapping[str, str] = field(default_factory=dict)
    dialers: Sequence[Dialer] = ()

    def for_one_piece(self, chance: random.Random) -> Context:
        """The same, with a dialer of either kind: a relay for each connection, or one for several."""
        if not self.dialers:
            return self
        return replace(self, dialer=chance.choice(self.dialers))

    def dial(self, address: tuple[str, int]) -> TunnelSocket:
        """Dial, count the session, and bound every wait on its socket."""
        _said.session = ""
        sock = self.dialer.dial(address, DIAL)
        assert sock.session is not None
        _said.session = sock.session.id
        self.recent.append(sock.session.id)
        self.stats.session(sock.session.counters)
        sock.settimeout(HANG)
        return sock


def bulk_up(context: Context, chance: random.Random) -> None:
    """Many bytes to the target."""
    _transfer(context, chance, up=8_000_000, down=0)


def bulk_down(context: Context, chance: random.Random) -> None:
    """Many bytes from the target."""
    _transfer(context, chance, up=0, down=8_000_000)


def bulk_both(context: Context, chance: random.Random) -> None:
    """Many bytes both ways at once."""
    _transfer(context, chance, up=6_000_000, down=6_000_000)


def half_close(context: Context, chance: random.Random) -> None:
    """Everything up, the end of that stream, and only then everything down."""
    _transfer(context, chance, up=chance.randrange(1, 1_000_000), down=1_000_000, after=True)


def short_dial(context: Context, chance: random.Random) -> None:
    """A few bytes each way."""
    _transfer(context, chance, up=chance.randrange(50), down=chance.randrange(50))


def idle(context: Context, chance: random.Random) -> None:
    """Nothing for a while, then a few bytes each way."""
    _transfer(context, chance, up=100, down=100, pause=chance.uniform(5.0, 30.0))


def ping_pong(context: Context, chance: random.Random) -> None:
    """Short statements, one after the other, over one connection to PostgreSQL."""
    postgres = context.postgres
    sock = context.dial((postgres.host, postgres.port))
    with contextlib.closing(sock):
        connection = pg8000.dbapi.Connection(
            user=postgres.user,
            password=postgres.password,
            database=postgres.database,
            sock=sock,
            ssl_context=False,
        )
        try:
            cursor = connection.cursor()
            for _ in range(chance.randrange(10, 60)):
                number = chance.randrange(1 << 40)
                cursor.execute("SELECT %s::bigint + 1, md5(%s::text)", (number, str(number)))
                found: Any = cursor.fetchall()[0]
                if found[0] != number + 1 or len(found[1]) != 32:
                    raise MismatchError(f"asked about {number}, got {found!r}")
                context.stats.moved(100)
        except BaseException:
            with contextlib.suppress(Exception):
                connection.close()  # it has a file of its own over the socket, which keeps that open
            raise
        connection.close()


def _transfer(
    context: Context, chance: random.Random, *, up: int, down: int, after: bool = False, pause: float = 0.0
) -> None:
    transfer = Transfer(chance.randrange(1 << 62), up, down, after)
    with transfers(context, transfer) as sock:
        if pause:
            context.stop.wait(pause)
        exchange(context, sock, transfer)


@contextlib.contextmanager
def transfers(context: Context, transfer: Transfer) -> Iterator[TunnelSocket]:
    """A socket to the target; how the transfer ended is noted, if it was with a clear error."""
    try:
        with context.dial(context.target) as sock:
            yield sock
    except (EmissaryError, ConnectionError) as exc:
        context.stats.cut_off[transfer.number] = name_of(exc)
        raise


def exchange(
    context: Context, sock: TunnelSocket, transfer: Transfer, wait: Callable[[], object] = lambda: None
) -> None:
    """Send and receive all of a transfer, and look at every byte.

    Args:
        context: Where to count.
        sock: From :func:`transfers`.
        transfer: What, and how much.
        wait: Called before the first read, while the bytes up are being written already.

    Raises:
        MismatchError: Wrong, missing or surplus bytes.
        OSError: The tunnel was cut off, or nothing happened for :data:`HANG` seconds.
    """
    failed: list[BaseException] = []

    def send() -> None:
        try:
            sock.sendall(transfer.header())
            give(sock, transfer.number, transfer.up)
            sock.shutdown(socket.SHUT_WR)
        except OSError as exc:
            failed.append(exc)

    sender = threading.Thread(target=send, name="soak-sender", daemon=True)
    sender.start()
    offset = 0
    try:
        wait()
        while data := sock.recv(PIECE):
            payload = data[: max(0, transfer.down - offset)]
            if (where := first_difference(transfer.number + 1, offset, payload)) is not None:
                raise MismatchError(f"transfer {transfer.number}: wrong byte at {where} of {transfer.down}")
            rest = data[len(payload) :]
            offset += len(data)
            if rest and (rest != DONE or offset != transfer.down + 1):
                raise MismatchError(f"transfer {transfer.number}: {rest[:20]!r} follows the last byte")
            context.stats.moved(len(data))
        if offset != transfer.down + 1:
            raise MismatchError(
                f"transfer {transfer.number}: a clean end after {offset} of {transfer.down + 1} bytes"
            )
    finally:
        if offset != transfer.down + 1:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)  # the sender must not wait for what is over
        sender.join()
    if failed:
        raise failed[0]


def name_of(exc: BaseException) -> str:
    """What an error is counted as: its type, and its code if it has one."""
    code = getattr(exc, "code", None) or getattr(exc, "http_status", None)
    return type(exc).__name__ + (f"/{getattr(code, 'name', code)}" if code is not None else "")


def _session() -> str:
    """Id of the session that this thread has dialled last; empty if it was not opened."""
    return str(getattr(_said, "session", ""))


def _told(exc: BaseException) -> str:
    """What an error says, and of which session."""
    session = _session()[:8]
    notes = [note for each in (exc, exc.__cause__) for note in getattr(each, "__notes__", ())]
    return " ".join([*(["session " + session] if session else []), *notes, str(exc)])


def attempt(context: Context, kind: str, work: Any, chance: random.Random) -> bool:
    """Do one piece of work, and count how it went; whether it went well.

    A clear error is the tunnel's own or the connection's reset, however deep a driver has wrapped it.
    Everything else is a mismatch: a driver that met the end of a stream that the database never ended, a wait
    that was longer than :data:`HANG`, wrong bytes.
    """
    try:
        work(context.for_one_piece(chance), chance)
    except BaseException as exc:
        cause: BaseException | None = exc
        while cause is not None:
            if isinstance(cause, EmissaryError | ConnectionError) and not isinstance(cause, MismatchError):
                context.stats.error(kind, name_of(cause), _told(cause), _session())
                return False
            cause = cause.__cause__ or cause.__context__
        context.stats.mismatch(f"{kind}: {type(exc).__name__}: {_told(exc)}")
        return False
    context.stats.well(kind)
    return True
