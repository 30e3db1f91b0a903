"""Sends each kind of message to a local cloud, and reads from its meter what it cost.

Run as a program, it measures anew what tools/costs.json has::

    python -m tests.helpers.costs
"""

from __future__ import annotations

import contextlib
import functools
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import botocore.session

from emissary_lib.bridge import items
from emissary_lib.bridge.session import Connection
from emissary_lib.client.endpoint import Endpoint
from emissary_lib.exceptions import GatewayRefusedError
from emissary_lib.protocol.auth.headers import RelayHeaders, ResumeHeaders
from emissary_lib.protocol.auth.httpdate import http_date
from emissary_lib.protocol.auth.keys import Key
from emissary_lib.protocol.auth.macs import sign_connect, sign_opening
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.constants import MAX_PAYLOAD
from emissary_lib.protocol.opening.exchange import opening_bytes
from emissary_lib.protocol.role import Role
from emissary_lib.protocol.targets.allow_list import Target
from emissary_lib.protocol.wire.frames import Flag, FrameType
from emissary_lib.protocol.wire.health import QUESTION_BYTES
from emissary_lib.protocol.wire.payloads import Connections, End, Opened
from emissary_lib.transport.deadline import Deadline
from emissary_lib.transport.websocket import connect
from emissary_local import LocalCloud
from emissary_local.billing.meter import MeterSnapshot
from tests.helpers.local_cloud import PARAMETERS, TEMPLATE
from tests.helpers.patience import HANG, wait_until
from tests.helpers.raw_dialer import RawDialer
from tools.costs import KEY_HOLDER, STRANGER, Cost, save

#: Both limits: as high as they may be.
LIMIT: Final = 1000

CONNECT, DEFAULT, DISCONNECT = "ConnectFunction", "DefaultFunction", "DisconnectFunction"

#: A type that no version has.
_UNKNOWN: Final = 31


class Gate:
    """A target that lets nobody in until it is opened; then it reads and says nothing.

    So a launch is over before the claim begins. A full queue drops a SYN, which the kernel sends again.
    """

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=0)
        self.address: tuple[str, int] = self._listener.getsockname()
        self._kept: list[socket.socket] = []
        self._accepting = threading.Thread(target=self._accept)
        for _ in range(4):
            filling = socket.socket()
            filling.setblocking(False)
            filling.connect_ex(self.address)
            self._kept.append(filling)

    def open(self) -> None:
        """Let everybody in from now on."""
        self._accepting.start()

    def close(self) -> None:
        """Cut everybody off."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # which wakes who waits in accept
        if self._accepting.ident is not None:
            self._accepting.join(HANG)
        self._listener.close()
        for each in self._kept:
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self._kept.append(self._listener.accept()[0])


def operator_client(cloud: LocalCloud) -> Any:
    """A client of the cloud's DynamoDB, as its operator's."""
    operator = cloud.operator
    return botocore.session.Session().create_client(
        "dynamodb",
        region_name=operator["AWS_DEFAULT_REGION"],
        endpoint_url=operator["AWS_ENDPOINT_URL_DYNAMODB"],
        aws_access_key_id=operator["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=operator["AWS_SECRET_ACCESS_KEY"],
        aws_session_token=operator["AWS_SESSION_TOKEN"],
    )


class Places:
    """The slots of the cloud's limits, filled by its operator."""

    def __init__(self, cloud: LocalCloud) -> None:
        self._client = operator_client(cloud)
        self._table = cloud.tables["SlotTable"]

    def fill(self, limit: str, most: int) -> None:
        """Have sessions hold the first slots of a limit."""
        # As many digits as a time can have, and each time as many: they are part of the item's size.
        until, purge_at = f"{int(time.time()) + 3600}.1234567", str(int(time.time()) // 10 * 10 + 7207)
        for start in range(0, most, 25):
            puts = [
                {
                    "limit": {"S": limit},
                    "slot": {"N": str(slot)},
                    "session": {"B": secrets.token_bytes(32)},
                    "expires": {"N": until},
                    "purge_at": {"N": purge_at},
                }
                for slot in range(start, min(start + 25, most))
            ]
            requests = [{"PutRequest": {"Item": item}} for item in puts]
            assert not self._client.batch_write_item(RequestItems={self._table: requests})["UnprocessedItems"]

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close()


class Sessions:
    """The cloud's table of sessions, as its operator has it."""

    def __init__(self, cloud: LocalCloud) -> None:
        self._client = operator_client(cloud)
        self._table = cloud.tables["SessionTable"]

    def make_relay(self, dialer: RawDialer, session_of: RawDialer) -> None:
        """Have a dialer's connection be the relay's of another's session, so that a test can speak for it."""
        own = self._read(dialer)["dialer_connection"]["S"]
        item = items.connection(Connection(own, session_of.session, Role.RELAY, 1), int(time.time()) + 3600)
        self._client.put_item(TableName=self._table, Item=item)

    def _read(self, dialer: RawDialer) -> dict[str, Any]:
        key = items.session_key(dialer.session)
        item: dict[str, Any] = self._client.get_item(TableName=self._table, Key=key, ConsistentRead=True)[
            "Item"
        ]
        return item

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close()


class Ledger:
    """The rows so far.

    What comes late, though a row did not wait for it, is found in the next row: each begins where the one
    before ended.
    """

    def __init__(self, cloud: LocalCloud) -> None:
        self.rows: list[Cost] = []
        self._cloud = cloud
        self._before = cloud.meter

    def skip(
        self, act: Callable[[], object], invocations: Mapping[str, int], posts: int = 0
    ) -> MeterSnapshot:
        """Do what is no row, and wait until it is over."""
        act()

        def over() -> bool:
            new = self._cloud.meter - self._before
            done = all(new.invocations.get(name, 0) >= count for name, count in invocations.items())
            return done and new.callbacks.get("POST", 0) >= posts

        wait_until(over, f"{dict(invocations)} and {posts} posts")
        before, self._before = self._before, self._cloud.meter
        return self._before - before

    def row(
        self,
        who: str,
        message: str,
        act: Callable[[], object],
        invocations: Mapping[str, int],
        posts: int = 0,
    ) -> None:
        """Send a message, and wait for so many ends of invocations and posts."""
        cost = self.skip(act, invocations, posts)
        self.rows.append(
            Cost(
                who,
                message,
                sum(count for name, count in cost.invocations.items() if name != "RelayFunction"),
                cost.callbacks.get("POST", 0),
                cost.message_units_in + cost.message_units_out + cost.callback_units + cost.connects,
                cost.write_units,
                cost.read_units,
            )
        )


def measure() -> list[Cost]:
    """All rows, measured on a cloud of their own."""
    parameters = {**PARAMETERS, "MaxSessions": str(LIMIT), "MaxSessionsPerKey": str(LIMIT)}
    with LocalCloud(TEMPLATE, parameters=parameters) as cloud, contextlib.ExitStack() as stack:
        ledger = Ledger(cloud)
        _strangers(cloud, ledger)
        _openings(cloud, ledger, stack)
        _sessions(cloud, ledger, stack)
        places = Places(cloud)
        stack.callback(places.close)
        _limits(cloud, ledger, stack, places)
        return ledger.rows


def strangers(cloud: LocalCloud) -> dict[str, dict[str, str]]:
    """The headers of upgrades by somebody who has no key, whoever he poses as, by what they are called."""
    host = Endpoint(cloud.url).host

    def signed(key: Key) -> dict[str, str]:
        return sign_connect(
            key, date=http_date(time.time()), nonce=secrets.token_bytes(32), host=host
        ).to_headers()

    def showing(key: Key) -> dict[str, str]:
        date, nonce = http_date(time.time()), secrets.token_bytes(32)
        stream = opening_bytes(key=key, date=date, nonce=nonce, target=Target("127.0.0.1", 1024))
        opening = sign_opening(key, date=date, nonce=nonce, host=host, window=65_536, stream=stream)
        return sign_connect(key, date=date, nonce=nonce, host=host).to_headers() | opening.to_headers()

    forged = Key(cloud.key.key_id, secrets.token_bytes(32))
    session = secrets.token_hex(32)
    return {
        "an upgrade without headers": {},
        "an upgrade with a forged MAC": signed(forged),
        "an upgrade with forged MACs that shows an opening": showing(forged),
        "an upgrade with an unknown key id": signed(Key(77, secrets.token_bytes(32))),
        "an upgrade that poses as a dialer's return": {
            **signed(forged), **ResumeHeaders(session, secrets.token_bytes(32), 2).to_headers()
        },
        "an upgrade that poses as a relay's": RelayHeaders(
            session, secrets.token_bytes(32), secrets.token_hex(16), 1
        ).to_headers(),
    }  # fmt: skip


def refused(cloud: LocalCloud, headers: dict[str, str]) -> None:
    """Ask for an upgrade with them, and be refused."""
    with contextlib.suppress(GatewayRefusedError):
        connect(cloud.url, headers=headers, deadline=Deadline(HANG)).release()
        raise AssertionError("a stranger was let in")


def _strangers(cloud: LocalCloud, ledger: Ledger) -> None:
    for message, headers in strangers(cloud).items():
        ledger.row(STRANGER, message, functools.partial(refused, cloud, headers), {CONNECT: 1})


def _enter(
    cloud: LocalCloud,
    stack: contextlib.ExitStack,
    into: list[RawDialer],
    shows: tuple[str, int] | None = None,
) -> Callable[[], None]:
    def enter() -> None:
        into.append(stack.enter_context(RawDialer(cloud.url, cloud.key, shows=shows)))

    return enter


def _openings(cloud: LocalCloud, ledger: Ledger, stack: contextlib.ExitStack) -> None:
    dialers: list[RawDialer] = []
    ledger.row(KEY_HOLDER, "a dialer's upgrade", _enter(cloud, stack, dialers), {CONNECT: 1})
    (dialer,) = dialers
    opening = dialer.opening(("127.0.0.1", 1024))
    kinds: list[tuple[str, FrameType, bytes, int]] = [
        ("OPENING of one byte", FrameType.OPENING, opening[:1], 0),
        ("DATA", FrameType.DATA, b"x", 0),
        ("PROBE", FrameType.PROBE, b"12345678", 1),
        ("RESUME", FrameType.RESUME, b"", 1),
        ("ENDED, which is not the dialer's to send", FrameType.ENDED, b"", 1),
    ]
    for message, kind, payload, posts in kinds:

        def send(kind: FrameType = kind, payload: bytes = payload) -> None:
            dialer.send(kind, payload)

        ledger.row(KEY_HOLDER, f"before the launch: {message}", send, {DEFAULT: 1}, posts)

    def leave() -> None:
        dialer.__exit__(None, None, None)

    ledger.row(KEY_HOLDER, "before the launch: the dialer's leaving", leave, {DISCONNECT: 1})


def _sessions(cloud: LocalCloud, ledger: Ledger, stack: contextlib.ExitStack) -> None:
    dialers: list[RawDialer] = []
    positions: list[tuple[int, int]] = []  # of both streams: what the opening has carried
    gates: list[Gate] = []

    def launch() -> None:
        gates.append(Gate())
        stack.callback(gates[-1].close)
        dialers[-1].send(FrameType.OPENING, dialers[-1].opening(gates[-1].address))

    def claim() -> None:
        gates[-1].open()
        frame = dialers[-1].receive(FrameType.OPENED)
        _, said = Opened.decode(frame.payload)
        positions.append((len(dialers[-1].opening(gates[-1].address)), frame.offset + len(said)))

    ledger.skip(_enter(cloud, stack, dialers), {CONNECT: 1})
    ledger.row(KEY_HOLDER, "an OPENING that launches a relay", launch, {DEFAULT: 1})
    ledger.row(KEY_HOLDER, "a relay's claim, with its OPENED", claim, {CONNECT: 1}, 1)
    (ended,), ((sent, taken),) = dialers, positions

    def data(more: int) -> Callable[[], None]:
        return lambda: ended.send(
            FrameType.DATA, b"x", offset=sent + more, ack=taken, flags=Flag.ACK_NOW, generation=2
        )

    row = "while open: "
    ledger.row(
        KEY_HOLDER, row + "DATA, the first that an environment copies, and its ACK", data(0), {DEFAULT: 1}, 2
    )
    ledger.row(KEY_HOLDER, row + "DATA and its ACK", data(1), {DEFAULT: 1}, 2)
    ledger.row(
        KEY_HOLDER, row + "PING and its PONG",
        lambda: ended.send(FrameType.PING, b"12345678", ack=taken, generation=2), {DEFAULT: 1}, 2,
    )  # fmt: skip
    ledger.row(
        KEY_HOLDER, row + "RESUME", lambda: ended.send(FrameType.RESUME, generation=2), {DEFAULT: 1}, 3
    )
    ledger.row(
        KEY_HOLDER, row + "a frame of an unknown type",
        lambda: ended.send(_UNKNOWN, flags=Flag.IGNORABLE, generation=2), {DEFAULT: 1},  # type: ignore[arg-type]
    )  # fmt: skip
    ledger.row(
        KEY_HOLDER, row + "END, and the relay's leaving",
        lambda: ended.send(FrameType.END, End(Code.DIALER_RESET, 0, 0).encode(), generation=2),
        {DEFAULT: 1, DISCONNECT: 1}, 2,
    )  # fmt: skip

    def another() -> RawDialer:
        ledger.skip(_enter(cloud, stack, dialers), {CONNECT: 1})
        ledger.skip(launch, {DEFAULT: 1})
        ledger.skip(claim, {CONNECT: 1}, 1)
        ledger.skip(
            lambda: dialers[-1].send(FrameType.ACK, ack=positions[-1][1], generation=2), {DEFAULT: 1}, 1
        )  # else the relay says it again
        return dialers[-1]

    left = another()
    ledger.row(
        KEY_HOLDER, row + "the dialer's leaving", lambda: left.__exit__(None, None, None), {DISCONNECT: 1}, 1
    )
    _at_the_door(cloud, ledger, stack)
    shared = another()
    sessions = Sessions(cloud)
    stack.callback(sessions.close)

    def have_a_relay() -> None:
        _enter(cloud, stack, dialers)()
        sessions.make_relay(dialers[-1], shared)

    ledger.skip(have_a_relay, {CONNECT: 1})
    relay = dialers[-1]
    ledger.row(
        KEY_HOLDER, row + "a relay's CONNECTIONS, one in 10 s at most",
        lambda: relay.send(
            FrameType.CONNECTIONS, Connections(1000, 64, 1000).encode(), flags=Flag.IGNORABLE, generation=2
        ),
        {DEFAULT: 1},
    )  # fmt: skip
    ledger.skip(
        lambda: shared.send(FrameType.END, End(Code.DIALER_RESET, 0, 0).encode(), generation=2),
        {DEFAULT: 1, DISCONNECT: 1}, 2,
    )  # fmt: skip


def _at_the_door(cloud: LocalCloud, ledger: Ledger, stack: contextlib.ExitStack) -> None:
    gate, dialers = Gate(), list[RawDialer]()
    stack.callback(gate.close)
    enter = _enter(cloud, stack, dialers, gate.address)
    ledger.row(KEY_HOLDER, "a dialer's upgrade that launches a relay", enter, {CONNECT: 1})
    (dialer,) = dialers
    opening = dialer.opening(gate.address)
    again = "its OPENING behind that, before the claim"
    ledger.row(KEY_HOLDER, again, lambda: dialer.send(FrameType.OPENING, opening), {DEFAULT: 1})

    def claim() -> None:
        gate.open()
        dialer.opened()

    ledger.skip(claim, {CONNECT: 1}, 1)
    ledger.row(
        KEY_HOLDER, "its OPENING behind the claim, and the relay's ACK",
        lambda: dialer.send(FrameType.OPENING, opening), {DEFAULT: 1}, 2,
    )  # fmt: skip
    ledger.skip(
        lambda: dialer.send(FrameType.END, End(Code.DIALER_RESET, 0, 0).encode(), generation=2),
        {DEFAULT: 1, DISCONNECT: 1}, 2,
    )  # fmt: skip


def _limits(cloud: LocalCloud, ledger: Ledger, stack: contextlib.ExitStack, places: Places) -> None:
    key = f"K#{cloud.key.key_id}"

    def health(taken: int, of_key: int, message: str, size: int = QUESTION_BYTES) -> None:
        dialers: list[RawDialer] = []

        def prepare() -> None:
            places.fill("L", taken)
            places.fill(key, of_key)
            _enter(cloud, stack, dialers)()

        def ask() -> None:
            dialers[0].send(FrameType.HEALTH, bytes(size))
            dialers[0].receive(FrameType.HEALTHY)

        ledger.skip(prepare, {CONNECT: 1})
        ledger.row(KEY_HOLDER, f"HEALTH with {message}", ask, {DEFAULT: 1}, 1)

    health(5, 0, "5 places taken")
    health(5, 0, "5 places taken, filled up to the longest message", MAX_PAYLOAD)
    health(100, 100, "100 places taken, and 100 of the key's")
    dialers: list[RawDialer] = []

    def prepare() -> None:
        places.fill("L", LIMIT)
        places.fill(key, LIMIT - 1)
        _enter(cloud, stack, dialers)()

    def launch() -> None:
        dialers[0].send(FrameType.OPENING, dialers[0].opening(("127.0.0.1", 1024)))
        dialers[0].receive(FrameType.ENDED)

    ledger.skip(prepare, {CONNECT: 1})
    message = "an OPENING that finds 1,000 places taken, after 999 of the key's"
    ledger.row(KEY_HOLDER, message, launch, {DEFAULT: 1}, 1)
    message = "a dialer's upgrade that shows its opening, and finds them taken"
    ledger.row(KEY_HOLDER, message, _enter(cloud, stack, [], ("127.0.0.1", 1024)), {CONNECT: 1})
    health(LIMIT, LIMIT, "1,000 places taken, and 1,000 of the key's")


def main() -> None:
    """Measure, and keep what comes of it."""
    save(measure())


if __name__ == "__main__":
    main()
