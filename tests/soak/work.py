"""What the dialers of a soak do. Each function is one piece of work: one dial, and what it is for."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
from dataclasses import dataclass
from typing import Any, Final

import pg8000.dbapi

from emissary_lib import Dialer
from emissary_lib.demo.postgres import Postgres
from emissary_lib.exceptions import EmissaryError
from emissary_lib.tunnel_socket import TunnelSocket
from tests.soak.pattern import first_difference
from tests.soak.tally import Mismatch, Tally
from tests.soak.target import DONE, PIECE, Transfer, give

#: Longest that a read or a write may wait, in seconds; more is a hang. A side that has lost its WebSocket is
#: waited for 60 s (docs/protocol.md 5.2); before that a silent death must be noticed, by PROBE 30 s after it.
HANG: Final = 110.0

#: Longest dial, in seconds.
DIAL: Final = 60.0


@dataclass(frozen=True, slots=True)
class World:
    """Where the work is done.

    Attributes:
        dialer: Through the local cloud.
        target: Address of the :class:`~tests.soak.target.Target`.
        postgres: The database, by its direct address.
        tally: Where to count.
        stop: Set when no more work is to begin.
        cut_off: Transfers that ended with a clear error, and its name.
    """

    dialer: Dialer
    target: tuple[str, int]
    postgres: Postgres
    tally: Tally
    stop: threading.Event
    cut_off: dict[int, str]

    def dial(self, address: tuple[str, int]) -> TunnelSocket:
        """Dial, count the session, and bound every wait on its socket."""
        sock = self.dialer.dial(address, DIAL)
        assert sock.session is not None
        self.tally.session(sock.session.counters)
        sock.settimeout(HANG)
        return sock


def bulk_up(world: World, chance: random.Random) -> None:
    """Many bytes to the target."""
    _transfer(world, chance, up=8_000_000, down=0)


def bulk_down(world: World, chance: random.Random) -> None:
    """Many bytes from the target."""
    _transfer(world, chance, up=0, down=8_000_000)


def bulk_both(world: World, chance: random.Random) -> None:
    """Many bytes both ways at once."""
    _transfer(world, chance, up=6_000_000, down=6_000_000)


def half_close(world: World, chance: random.Random) -> None:
    """Everything up, the end of that stream, and only then everything down."""
    _transfer(world, chance, up=chance.randrange(1, 1_000_000), down=1_000_000, after=True)


def short_dial(world: World, chance: random.Random) -> None:
    """A few bytes each way."""
    _transfer(world, chance, up=chance.randrange(50), down=chance.randrange(50))


def idle(world: World, chance: random.Random) -> None:
    """Nothing for a while, then a few bytes each way."""
    _transfer(world, chance, up=100, down=100, pause=chance.uniform(5.0, 30.0))


def ping_pong(world: World, chance: random.Random) -> None:
    """Short statements, one after the other, over one connection to PostgreSQL."""
    postgres = world.postgres
    sock = world.dial((postgres.host, postgres.port))
    with contextlib.closing(sock):
        connection = pg8000.dbapi.Connection(
            user=postgres.user,
            password=postgres.password,
            database=postgres.database,
            sock=sock,
            ssl_context=False,
        )
        cursor = connection.cursor()
        for _ in range(chance.randrange(10, 60)):
            number = chance.randrange(1 << 40)
            cursor.execute("SELECT %s::bigint + 1, md5(%s::text)", (number, str(number)))
            found: Any = cursor.fetchall()[0]
            if found[0] != number + 1 or len(found[1]) != 32:
                raise Mismatch(f"asked about {number}, got {found!r}")
            world.tally.moved(100)
        connection.close()


def _transfer(
    world: World, chance: random.Random, *, up: int, down: int, after: bool = False, pause: float = 0.0
) -> None:
    transfer = Transfer(chance.randrange(1 << 62), up, down, after)
    try:
        with world.dial(world.target) as sock:
            if pause:
                world.stop.wait(pause)
            _exchange(world, sock, transfer)
    except (EmissaryError, ConnectionError) as exc:
        world.cut_off[transfer.number] = name_of(exc)
        raise


def _exchange(world: World, sock: TunnelSocket, transfer: Transfer) -> None:
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
    try:
        offset = 0
        while data := sock.recv(PIECE):
            payload = data[: max(0, transfer.down - offset)]
            if (where := first_difference(transfer.number + 1, offset, payload)) is not None:
                raise Mismatch(f"transfer {transfer.number}: wrong byte at {where} of {transfer.down}")
            rest = data[len(payload) :]
            offset += len(data)
            if rest and (rest != DONE or offset != transfer.down + 1):
                raise Mismatch(f"transfer {transfer.number}: {rest[:20]!r} follows the last byte")
            world.tally.moved(len(data))
        if offset != transfer.down + 1:
            raise Mismatch(
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


def attempt(world: World, kind: str, work: Any, chance: random.Random) -> bool:
    """Do one piece of work, and count how it went; whether it went well.

    A clear error is the tunnel's own or the connection's reset, however deep a driver has wrapped it.
    Everything else is a mismatch: a driver that met the end of a stream that the database never ended, a wait
    that was longer than :data:`HANG`, wrong bytes.
    """
    try:
        work(world, chance)
    except BaseException as exc:
        cause: BaseException | None = exc
        while cause is not None:
            if isinstance(cause, EmissaryError | ConnectionError) and not isinstance(cause, Mismatch):
                world.tally.error(f"{kind}: {name_of(cause)}", str(cause))
                return False
            cause = cause.__cause__ or cause.__context__
        world.tally.mismatch(f"{kind}: {type(exc).__name__}: {exc}")
        return False
    world.tally.well(kind)
    return True
