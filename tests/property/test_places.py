"""Never more relays than places, and none is lost: whatever order messages, disconnects and crashes come in.

The real handlers over the fake store, which keeps the contract of the real one; relays and dialers are models
of themselves, and keep the times that they promise.
"""

from __future__ import annotations

import contextlib
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from hypothesis import given
from hypothesis import strategies as st

from emissary_lib.bridge.launch import Launch
from emissary_lib.bridge.limits import Limit, Limits
from emissary_lib.bridge.session import LAUNCH_MARGIN, LEAVE_MARGIN, RecordState
from emissary_lib.protocol.auth.httpdate import http_date
from emissary_lib.protocol.auth.keys import KeyRing
from emissary_lib.protocol.auth.macs import (
    RelayHeaders,
    ResumeHeaders,
    resume_mac,
    session_id,
    sign_connect,
    sign_opening,
)
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.constants import ARRIVAL_TIME, LINGER, OPENING_TIME, SUBPROTOCOL
from emissary_lib.protocol.errors import EmissaryError
from emissary_lib.protocol.opening.exchange import opening_bytes
from emissary_lib.protocol.targets.allow_list import SHARED_TARGET, AllowList, Target
from emissary_lib.protocol.wire.frames import Frame, FrameType, encode
from emissary_lib.protocol.wire.payloads import Connections, End
from functions.common import wiring
from functions.common.adapters.keys import EnvironmentKeys
from functions.common.errors import ClaimRefusedError
from functions.common.events import GatewayEvent
from functions.common.routes.peers import PeerCache
from functions.relay.service import TARGET_TIMEOUT
from tests.helpers.events import HOST, KEY, NOW, STAGE
from tests.helpers.fakes import FakeClock, FakeLauncher, FakeLink, FakeStore

GRACE = 20.0
RELAY_TIME = 200.0

#: The latest start of a relay after its launch, in seconds, for which :data:`LAUNCH_MARGIN` leaves room.
LATEST_START = LAUNCH_MARGIN - TARGET_TIMEOUT - LINGER

#: Close codes of a $disconnect.
GOODBYE, BROKEN = 1000, 1006


@dataclass(eq=False)
class Relay:
    """One invocation.

    Attributes:
        begins_by: When it starts at the latest, or never does.
        returns_at: When it returns at the latest: it is refused, told of the end, gone for good, or killed.
        lost_at: When its WebSocket was lost for which it has no other yet.
        resumes: It has to say RESUME yet.
        claimed_at: When it was let in first.
        absent: Its dialer hung up before the 101, so that nothing it posts arrives.
        idle: Its session's only launch has been answered for, by its own refusal or by another that Lambda
            started for it: nothing but a refusal can come of this one.
    """

    launch: Launch
    instance: str
    begins_by: float
    started: float | None = None
    connection: str | None = None
    epoch: int = 0
    returns_at: float = float("inf")
    lost_at: float | None = None
    claimed: bool = False
    claimed_at: float = float("inf")
    absent: bool = False
    resumes: bool = False
    idle: bool = False
    returned: bool = False

    @property
    def running(self) -> bool:
        return self.started is not None and not self.returned

    @property
    def has_place(self) -> bool:
        """Whether a place has to be kept for it."""
        return self.running and not self.idle


@dataclass(eq=False)
class Client:
    """A dialer.

    Attributes:
        absent: It hung up before its 101, behind a launch at the door.
        silent: And no $disconnect tells of that.
    """

    session: str
    nonce: bytes
    date: str
    connection: str | None
    target: Target
    epoch: int = 1
    relays: list[Relay] = field(default_factory=list)
    absent: bool = False
    silent: bool = False


class Stack:
    """A stack with a limit, and everything that can happen to its sessions, drawn from a seed."""

    def __init__(self, seed: int, places: int) -> None:
        self.rng, self.places = random.Random(seed), places
        self.store, self.link, self.clock = FakeStore(), FakeLink(), FakeClock(NOW)
        self.launcher = FakeLauncher()
        self.numbers = itertools.count(1)
        self.clients: list[Client] = []
        self.disconnects: list[tuple[str, int]] = []
        keys = EnvironmentKeys(KeyRing([KEY]))
        allow = AllowList.parse('[{"host": "db.internal", "port": 5432}]')
        self.on_connect = wiring.on_connect(
            self.store,
            keys,
            self.clock,
            launcher=self.launcher,
            allow=allow,
            entropy=self.draw,
            limits=Limits(total=places),
            relay_time=RELAY_TIME,
        )
        self.on_message = wiring.on_message(
            self.store,
            self.link,
            launcher=self.launcher,
            keys=keys,
            allow=allow,
            peers=PeerCache(),
            clock=self.clock,
            entropy=self.draw,
            limits=Limits(total=places),
            relay_time=RELAY_TIME,
            grace=GRACE,
        )
        self.on_disconnect = wiring.on_disconnect(
            self.store, self.link, clock=self.clock, entropy=self.draw, grace=GRACE
        )

    def run(self, steps: int) -> None:
        """Do so many things; after each of them there are no more relays than places."""
        for _step in range(steps):
            self.rng.choice(self.choices())()
            # A session that was launched twice has two relays for as long as it takes to refuse one of them.
            busy = [each for each in self.clients if any(relay.has_place for relay in each.relays)]
            assert len(busy) <= self.places, f"{len(busy)} sessions have running relays"

    def end_all(self) -> None:
        """Everybody is gone, and every $disconnect comes, if late: then nothing is locked for long."""
        here: list[Relay | Client] = [*self.running(), *self.clients]
        for each in here:
            self.cut(each)
        for relay in self.relays():
            relay.returned = True
        for known in self.disconnects:
            self.note_disconnect(*known)
        self.clock.now += max(LAUNCH_MARGIN, GRACE + LEAVE_MARGIN) + 0.001
        # Of a dialer that never came its relay tells, if there is one that lives; else the lease runs out.
        silent = {client.session for client in self.clients if client.silent}
        held = {who for who, until in self.store.leases.values() if until > self.clock.now}
        assert held <= silent
        self.clock.now += OPENING_TIME + RELAY_TIME
        assert self.store.in_use(Limit(self.places), self.clock.now) == 0

    def choices(self) -> list[Callable[[], object]]:
        """What can happen now, each as often as it is likely to."""
        found: list[Callable[[], object]] = [self.dial, self.dial, self.wait]
        for client in self.clients[-4:]:
            if client.connection is None:
                found.append(partial(self.connect_dialer, client))
                continue
            to = client.connection
            found += [partial(self.cut, client), partial(self.end, to)]
            found += 3 * [partial(self.open, client)]  # after a while that is a second launch
            found.append(partial(self.send, to, FrameType.DATA, b"x"))  # finds out who is gone
        for relay in self.relays():
            if relay.started is None and not relay.returned:
                found += 4 * [partial(self.start, relay)]
        for relay in self.running():
            found.append(partial(self.crash, relay))
            if relay.connection is None:
                found += 4 * [partial(self.connect_relay, relay)]
                continue
            found += [
                partial(self.cut, relay),
                partial(self.end, relay.connection),
                partial(self.tell, relay),
            ]
            if relay.resumes:
                found += 2 * [partial(self.say_resume, relay)]
            if self.told(relay):
                found += 4 * [partial(self.goodbye, relay)]
        for known in self.disconnects[-4:]:
            found += [partial(self.note_disconnect, *known)]  # late, in any order, and perhaps again
        return found

    # -- what can happen ----------------------------------------------------------------------------

    def dial(self) -> None:
        nonce, date = self.draw(32), http_date(self.clock.now)
        target = self.rng.choice([Target("db.internal", 5432), SHARED_TARGET])
        client = Client(session_id(nonce), nonce, date, self.name(), target)
        headers = sign_connect(KEY, date=date, nonce=nonce, host=HOST).to_headers()
        shows = self.rng.random() < 0.5
        if shows:
            stream = opening_bytes(key=KEY, date=date, nonce=nonce, target=target)
            opening = sign_opening(KEY, date=date, nonce=nonce, host=HOST, window=65_536, stream=stream)
            headers |= opening.to_headers()
        self.on_connect(self.event("$connect", client.connection, headers=headers))
        self.clients.append(client)
        self.take_launches(client)
        if shows and self.rng.random() < 0.3:
            self.hang_up_early(client)
        self.open(client)

    def hang_up_early(self, client: Client) -> None:
        """The dialer is gone before its 101, and perhaps nobody ever tells of it."""
        client.absent, client.silent = True, self.rng.random() < 0.5
        for relay in client.relays:
            relay.absent = True
        if client.silent:
            self.link.gone.add(str(client.connection))
            client.connection = None
        else:
            self.cut(client)

    def wait(self) -> None:
        until = self.clock.now + self.rng.choice([0.1, 1, 4, 6, 15, 60])
        while self.clock.now < until:
            self.clock.now = min(until, self.clock.now + 1)
            self.keep_promises()

    def start(self, relay: Relay) -> None:
        if self.clock.now > relay.begins_by:
            relay.returned = True
            return
        relay.started = self.clock.now
        relay.returns_at = relay.started + TARGET_TIMEOUT

    def end(self, connection: str) -> None:
        code = self.rng.choice([Code.OK, Code.DIALER_RESET, Code.RELAY_GONE])
        self.send(connection, FrameType.END, End(code, 5, 7).encode())

    def tell(self, relay: Relay) -> None:
        self.send(
            str(relay.connection), FrameType.CONNECTIONS, Connections(self.rng.randrange(9), 1, 0).encode()
        )

    def crash(self, relay: Relay) -> None:
        self.cut(relay)
        relay.returned = True

    def open(self, client: Client) -> None:
        if client.connection is None:
            return
        stream = opening_bytes(key=KEY, date=client.date, nonce=client.nonce, target=client.target)
        self.send(client.connection, FrameType.OPENING, stream)
        self.take_launches(client)

    def take_launches(self, client: Client) -> None:
        for event in self.launcher.events:
            launch, by = Launch.parse(event), self.clock.now + LATEST_START
            client.relays.append(Relay(launch, f"{next(self.numbers):032x}", by))
            if self.rng.random() < 0.5:  # as Lambda may
                client.relays.append(Relay(launch, f"{next(self.numbers):032x}", by))
        self.launcher.events.clear()

    def connect_relay(self, relay: Relay) -> None:
        relay.epoch += 1
        connection = self.name()
        shown = RelayHeaders(relay.launch.session, relay.launch.relay_token, relay.instance, relay.epoch)
        try:
            self.on_connect(self.event("$connect", connection, headers=shown.to_headers()))
        except ClaimRefusedError:
            # It may not hear of that, and dial back again; nothing comes of it but another refusal.
            relay.returns_at = min(relay.returns_at, self.clock.now + TARGET_TIMEOUT)
            self.answer(relay)
            return
        relay.resumes, relay.claimed, relay.connection, relay.lost_at = relay.claimed, True, connection, None
        relay.claimed_at = min(relay.claimed_at, self.clock.now)
        relay.returns_at = float("inf") if relay.started is None else relay.started + RELAY_TIME
        self.answer(relay)

    def answer(self, claim: Relay) -> None:
        """A claim was granted or refused: of a session launched once, no place is kept for other relays."""
        session = self.store.sessions[claim.launch.session]
        ended_unclaimed = session.state is RecordState.ENDED and session.instance is None
        if len(session.relay_token_hashes) > 1 or not (claim.claimed or ended_unclaimed):
            return
        for relay in self.relays():
            if relay.launch.session == session.id and not relay.claimed:
                relay.idle = True
        if ended_unclaimed:
            leases = [self.store.leases[name] for name in session.slots]
            assert all(who != session.id or until <= self.clock.now for who, until in leases)

    def connect_dialer(self, client: Client) -> None:
        started = [relay for relay in client.relays if relay.claimed]
        if not started or client.absent:
            return
        client.epoch += 1
        nonce, date, connection = self.draw(32), http_date(self.clock.now), self.name()
        mac = resume_mac(KEY, date=date, nonce=nonce, host=HOST, session=client.session, epoch=client.epoch)
        signed = sign_connect(KEY, date=date, nonce=nonce, host=HOST)
        headers = {
            **type(signed)(KEY.key_id, date, nonce, mac).to_headers(),
            **ResumeHeaders(client.session, started[0].launch.resume_token, client.epoch).to_headers(),
        }
        with contextlib.suppress(ClaimRefusedError):
            self.on_connect(self.event("$connect", connection, headers=headers))
            client.connection = connection

    def say_resume(self, relay: Relay) -> None:
        relay.resumes = False
        self.send(str(relay.connection), FrameType.RESUME, b"")

    def keep_promises(self) -> None:
        """What relays do in time: leave when told, give up after the grace, end at the limit."""
        now = self.clock.now
        for relay in self.running():
            if relay.resumes and relay.connection:
                self.say_resume(relay)
            given_up = relay.absent and now >= relay.claimed_at + TARGET_TIMEOUT + ARRIVAL_TIME
            if given_up and relay.connection and not self.told(relay):
                self.send(relay.connection, FrameType.END, End(Code.DIALER_GONE, 0, 0).encode())
            if self.told(relay):
                relay.returns_at = min(relay.returns_at, now + LINGER)
            if relay.lost_at is not None and now >= relay.lost_at + GRACE:
                relay.returned = True
            if now >= relay.returns_at:
                self.goodbye(relay) if self.told(relay) else self.cut(relay)
                relay.returned = True

    def told(self, relay: Relay) -> bool:
        ended = self.store.sessions[relay.launch.session].state is RecordState.ENDED
        return ended and relay.connection is not None

    def goodbye(self, relay: Relay) -> None:
        if relay.connection:
            self.link.gone.add(relay.connection)
            self.disconnects.append((relay.connection, GOODBYE))
        relay.connection, relay.returned = None, True

    def cut(self, each: Relay | Client) -> None:
        if each.connection:
            self.link.gone.add(each.connection)
            self.disconnects.append((each.connection, BROKEN))
        each.connection = None
        if isinstance(each, Relay) and each.lost_at is None:
            each.lost_at = self.clock.now

    def note_disconnect(self, connection: str, code: int) -> None:
        self.on_disconnect(self.event("$disconnect", connection, close_code=code))

    def send(self, connection: str, kind: FrameType, payload: bytes) -> None:
        body = encode(Frame(kind, generation=1, window=65_536, payload=payload))
        with contextlib.suppress(EmissaryError):
            self.on_message(self.event("$default", connection, body=body.decode()))

    def event(
        self,
        route: str,
        connection: str | None,
        *,
        headers: dict[str, str] | None = None,
        body: str = "",
        close_code: int | None = None,
    ) -> GatewayEvent:
        shown = {"Sec-WebSocket-Protocol": SUBPROTOCOL, **(headers or {})}
        return GatewayEvent(
            route, str(connection), HOST, STAGE, self.name(), shown, body, close_code, "203.0.113.7"
        )

    def relays(self) -> list[Relay]:
        return [relay for client in self.clients for relay in client.relays]

    def running(self) -> list[Relay]:
        return [relay for relay in self.relays() if relay.running]

    def name(self) -> str:
        return f"c{next(self.numbers)}="

    def draw(self, count: int) -> bytes:
        return next(self.numbers).to_bytes(count, "big")


@given(seed=st.integers(0, 2**32), steps=st.integers(0, 120), places=st.sampled_from([1, 2]))
def test_there_are_never_more_relays_than_places_and_in_the_end_all_are_free(
    seed: int, steps: int, places: int
) -> None:
    stack = Stack(seed, places)
    stack.run(steps)
    stack.end_all()
