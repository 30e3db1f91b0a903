"""Connections that share relays: which relay takes a dial, when another is started, and when each ends."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from emissary_lib.client import drain, handshake, relays
from emissary_lib.client.dialer import Dialer, RelayInfo
from emissary_lib.client.progress import Progress
from emissary_lib.client.relays import LIFE_LEFT, REMEMBERED, choose
from emissary_lib.client.shared import SharedDial, SharedSession
from emissary_lib.client.socket import TunnelSocket
from emissary_lib.exceptions import (
    AuthenticationError,
    ClosedError,
    ConfigError,
    DialError,
    DialTimeoutError,
    SessionLimitError,
    TargetNotAllowedError,
)
from emissary_lib.protocol.auth.keys import Key
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.targets.allow_list import Target
from emissary_lib.protocol.wire.frames import Frame, FrameType, decode, encode
from emissary_lib.protocol.wire.payloads import Ended
from emissary_lib.transport.deadline import AbortableDeadline, Deadline
from emissary_lib.tunnel.loopback import tcp_pair
from tests.helpers.bridge import KEY, LIFE, TARGET, Behaviour, Bridge, Relay, SharedWire, Sharing, echo
from tests.helpers.clock import Clock
from tests.helpers.patience import HANG, wait_until

PARSED = Target.parse(TARGET)

FULL = encode(
    Frame(FrameType.ENDED, generation=1, payload=Ended(Code.SESSION_LIMIT, 0, 0, "limit of 1").encode())
)


@pytest.fixture
def bridge() -> Iterator[Bridge]:
    with Bridge(Behaviour(script=echo)) as bridge:
        yield bridge


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def dialer(bridge: Bridge, clock: Clock) -> Iterator[Dialer]:
    """One whose relays carry two connections each, on a clock that stands still."""
    with Dialer(bridge.url, KEY, connections_per_relay=2, clock=lambda: clock.now) as dialer:
        yield dialer


def dial(dialer: Dialer, timeout: float = HANG) -> TunnelSocket:
    sock = dialer.dial(TARGET, timeout)
    sock.settimeout(HANG)
    return sock


def echoes(sock: TunnelSocket, data: bytes = b"hello") -> None:
    """What is sent over it comes back."""
    sock.sendall(data)
    got = b""
    while len(got) < len(data):
        got += sock.recv(65_536)
    assert got == data


def id_of(sock: TunnelSocket) -> str:
    assert sock.session is not None
    return sock.session.id


def upgrades(bridge: Bridge) -> int:
    return len(bridge.server.requests)


def in_threads(count: int, act: Callable[[], object]) -> list[Any]:
    """What ``act`` gives or raises in each of so many threads at once."""
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(act())
        except Exception as exc:
            results.append(exc)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANG)
    assert len(results) == count
    return results


# -- which relay ---------------------------------------------------------------------------------


def test_a_further_dial_needs_no_further_upgrade_nor_another_opening(dialer: Dialer, bridge: Bridge) -> None:
    with dial(dialer) as first, dial(dialer) as second:
        echoes(first, b"one")
        echoes(second, b"two")
        assert id_of(first) == id_of(second)
        assert bridge.relay(1).target == PARSED
    openings = [text for text in bridge.messages if decode(text).type is FrameType.OPENING]
    assert (upgrades(bridge), len(openings)) == (1, 1)


def test_the_first_dial_costs_no_exchange_more_than_one_of_its_own() -> None:
    """Its request rides behind the SOCKS5 bytes, so that nothing but the answer is waited for."""
    with Bridge(Behaviour(script=echo)) as bridge:
        with Dialer(bridge.url, KEY, connections_per_relay=2, relay_idle_seconds=0) as dialer, dial(dialer):
            first = decode(bridge.messages[0])
            assert (first.type, first.offset) == (FrameType.OPENING, 0)
            assert b"CONNECT" not in first.payload, "it is packed"
            assert bridge.wires[0].session.received >= len(first.payload)


def test_one_connection_more_than_a_relay_carries_starts_a_second_relay(
    dialer: Dialer, bridge: Bridge
) -> None:
    socks = [dial(dialer) for _ in range(3)]
    assert upgrades(bridge) == 2
    assert id_of(socks[0]) == id_of(socks[1]) != id_of(socks[2])
    for sock in socks:
        echoes(sock)
        sock.close()


def test_a_place_that_is_free_again_is_given_to_the_next(dialer: Dialer, bridge: Bridge) -> None:
    with dial(dialer):
        for _ in range(4):
            dial(dialer).close()
            wait_until(lambda: dialer.relays[0].connections == 1, "its end")
        assert upgrades(bridge) == 1


def test_many_dials_at_once_wait_for_the_relay_that_one_of_them_starts(bridge: Bridge) -> None:
    with Dialer(bridge.url, KEY, connections_per_relay=10) as dialer:
        socks = in_threads(10, lambda: dial(dialer))
        assert upgrades(bridge) == 1
        for sock in socks:
            echoes(sock)
            sock.close()


def test_more_dials_at_once_than_one_relay_carries_start_as_many_as_it_takes(bridge: Bridge) -> None:
    with Dialer(bridge.url, KEY, connections_per_relay=3) as dialer:
        socks = in_threads(8, lambda: dial(dialer))
        assert upgrades(bridge) == 3
        assert sorted(each.connections for each in dialer.relays) == [2, 3, 3]
        for sock in socks:
            sock.close()


def test_a_relay_of_which_less_than_a_third_is_left_gets_no_new_dial(
    dialer: Dialer, bridge: Bridge, clock: Clock
) -> None:
    with dial(dialer) as old:
        clock.advance(LIFE * (1 - LIFE_LEFT) - 10)
        dial(dialer).close()
        assert upgrades(bridge) == 1
        wait_until(lambda: dialer.relays[0].connections == 1, "its end")
        clock.advance(20)
        with dial(dialer) as new:
            assert upgrades(bridge) == 2
            assert id_of(new) != id_of(old)
            echoes(old)
            echoes(new)


def test_a_relay_that_has_announced_its_end_gets_no_new_dial_whatever_it_has_left() -> None:
    """Of a relay that lives for a minute, half a minute is more than a third."""
    with Bridge(Behaviour(script=echo, life=60.0)) as bridge:
        with Dialer(bridge.url, KEY, connections_per_relay=4) as dialer, dial(dialer) as old:
            bridge.relay().go_away(30.0)
            wait_until(lambda: dialer.relays[0].going_away, "the announcement")
            assert dialer.relays[0].room == 0
            with dial(dialer) as new:
                assert id_of(new) != id_of(old)
            echoes(old)


def test_an_announced_end_reaches_every_connection_of_the_relay_and_no_other(
    dialer: Dialer, bridge: Bridge, caplog: pytest.LogCaptureFixture
) -> None:
    socks = [dial(dialer) for _ in range(3)]
    bridge.relay().go_away(30.0)
    infos = [sock.session for sock in socks if sock.session]
    wait_until(lambda: all(info.going_away for info in infos[:2]), "the announcement")
    assert not infos[2].going_away
    assert all(info.expires_at <= time.time() + 30 for info in infos[:2])
    assert infos[2].expires_at > time.time() + LIFE / 2

    def warned() -> int:
        return len([record for record in caplog.records if "ends in 30 s" in record.getMessage()])

    wait_until(lambda: warned() >= 2, "the warnings")
    assert warned() == 2
    for sock in socks:
        echoes(sock)
        sock.close()


def test_a_relay_that_drains_gets_no_new_dial(dialer: Dialer, bridge: Bridge) -> None:
    with dial(dialer) as old:
        wire = bridge.wires[0]
        assert isinstance(wire, SharedWire)
        wire.drain()
        wait_until(lambda: dialer.relays[0].room == 0, "it is heard of")
        with dial(dialer) as new:
            assert id_of(new) != id_of(old)
        echoes(old)


def test_a_relay_that_allows_fewer_than_we_would_ask_for_is_asked_for_no_more() -> None:
    with Bridge(Behaviour(script=echo, connections=2)) as bridge:
        with Dialer(bridge.url, KEY, connections_per_relay=64) as dialer:
            socks = [dial(dialer) for _ in range(4)]
            assert upgrades(bridge) == 2
            for sock in socks:
                sock.close()


def test_a_dial_that_was_declined_is_made_over_another_relay_at_once(bridge: Bridge) -> None:
    """The relay has no place to connect from, and the next one has."""
    with Dialer(bridge.url, KEY, connections_per_relay=4) as dialer, dial(dialer) as old:
        bridge.behaviour.declines = True
        declined = threading.Event()

        def script(relay: Any) -> None:
            relay.echo = True
            if declined.is_set():
                bridge.behaviour.declines = False
            declined.set()

        bridge.behaviour.script = script
        with dial(dialer) as new:
            assert id_of(new) != id_of(old)
            echoes(new)
        echoes(old)
        assert upgrades(bridge) == 2


def test_relays_that_decline_everything_are_not_started_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relays, "back_off", lambda: iter([0.0, 0.0, 10 * HANG]))
    with Bridge(Behaviour(declines=True)) as bridge:
        with Dialer(bridge.url, KEY, connections_per_relay=4) as dialer:
            with pytest.raises(DialError):
                dial(dialer)
            assert upgrades(bridge) == 3


class Fake:
    """A relay as it looks to who chooses one."""

    def __init__(self, room: int = 1, life_left: float = 0.9, *, busy: bool = False) -> None:
        self.room = room
        self.life_left = life_left
        self.busy = busy


@pytest.mark.parametrize(
    ("fakes", "chosen", "at_last"),
    [
        ([], None, None),
        ([Fake(room=0)], None, None),
        ([Fake(life_left=0.5), Fake(life_left=0.6)], 1, 1),
        ([Fake(life_left=0.5), Fake(busy=True)], 0, 0),
        ([Fake(busy=True), Fake(life_left=0.1)], None, 0),
        ([Fake(life_left=0.1), Fake(life_left=0.3)], None, 1),
        ([Fake(room=0, busy=True), Fake(life_left=0.2)], None, 1),
    ],
)
def test_the_youngest_is_chosen_of_those_with_time_and_room_that_are_not_busy(
    fakes: list[Any], chosen: int | None, at_last: int | None
) -> None:
    for expected, last_resort in ((chosen, False), (at_last, True)):
        found = choose(fakes, (), last_resort=last_resort)
        assert found is (None if expected is None else fakes[expected])
    assert choose(fakes, fakes, last_resort=True) is None


# -- limits of the bridge ------------------------------------------------------------------------


def sessions(dialer: Dialer) -> list[SharedSession]:
    assert dialer._pool is not None
    return dialer._pool.sessions


def test_a_relay_is_busy_when_it_carries_as_much_as_its_way_takes(bridge: Bridge) -> None:
    """Here one message at a time, of which none is acknowledged."""
    with Dialer(bridge.url, KEY, connections_per_relay=8, max_in_flight=1) as dialer:
        socks = [dial(dialer) for _ in range(5)]
        (session,) = sessions(dialer)
        assert not session.busy
        bridge.wires[0].frozen = True

        def fill() -> bool:
            for sock in socks:
                with contextlib.suppress(BlockingIOError):
                    sock.send(b"x" * 65_536)
            return session.busy

        for sock in socks:
            sock.setblocking(False)
        wait_until(fill, "as much as the way takes")
        for relay in bridge.wires[0].relays:
            relay.echo = False
        bridge.wires[0].frozen = False
        wait_until(lambda: not session.busy, "it is carried")
        for sock in socks:
            sock.close()


@pytest.fixture
def busy(dialer: Dialer, monkeypatch: pytest.MonkeyPatch) -> Iterator[TunnelSocket]:
    """A connection whose relay is busy; no other is."""
    with dial(dialer) as sock:
        name = id_of(sock)
        monkeypatch.setattr(SharedSession, "busy", property(lambda session: session.id == name))
        yield sock


def test_a_busy_relay_is_avoided(busy: TunnelSocket, dialer: Dialer, bridge: Bridge) -> None:
    with dial(dialer) as sock:
        assert id_of(sock) != id_of(busy)
        echoes(sock)
    assert upgrades(bridge) == 2


def test_a_busy_relay_is_taken_if_there_may_be_no_other(
    busy: TunnelSocket, dialer: Dialer, bridge: Bridge
) -> None:
    """And the limit is not waited for: somebody else's place would have to become free."""
    bridge.behaviour.stumbles = [FULL]
    with dial(dialer) as sock:
        assert id_of(sock) == id_of(busy)
        echoes(sock)
    assert upgrades(bridge) == 2


def test_a_relay_with_little_time_left_is_taken_if_there_may_be_no_other(
    dialer: Dialer, bridge: Bridge, clock: Clock
) -> None:
    with dial(dialer) as old:
        clock.advance(LIFE * 0.9)
        bridge.behaviour.stumbles = [FULL]
        with dial(dialer) as new:
            assert id_of(new) == id_of(old)
            echoes(new)


def test_a_limit_without_any_relay_is_told_in_the_bridge_s_words(
    monkeypatch: pytest.MonkeyPatch, dialer: Dialer
) -> None:
    monkeypatch.setattr(handshake, "LIMIT_WAIT", 0.0)
    bridge_full = Behaviour(answer=FULL)
    with Bridge(bridge_full) as bridge, Dialer(bridge.url, KEY, connections_per_relay=2) as full:
        with pytest.raises(SessionLimitError, match="limit of 1; close some") as caught:
            dial(full)
        assert caught.value.target == PARSED
        assert upgrades(bridge) == 1


def test_a_place_that_is_just_being_freed_is_waited_for(dialer: Dialer, bridge: Bridge) -> None:
    bridge.behaviour.stumbles = [FULL, FULL]
    with dial(dialer) as sock:
        echoes(sock)
    assert upgrades(bridge) == 3


# -- relays that cannot be started ----------------------------------------------------------------


def test_those_that_waited_for_a_relay_that_cannot_be_started_find_out_at_once_and_for_themselves() -> None:
    with Bridge() as bridge:
        wrong = Key(KEY.key_id, bytes(32))
        with Dialer(bridge.url, wrong, connections_per_relay=10) as dialer:
            for outcome in in_threads(5, lambda: dial(dialer)):
                assert isinstance(outcome, AuthenticationError)
        assert upgrades(bridge) == 5


def give_up_in_vain(dialer: Dialer, deadline: Deadline) -> None:
    with pytest.raises(DialTimeoutError):
        dialer._dial_socket(PARSED, deadline)


def test_a_start_that_is_given_up_is_made_anew_by_one_of_those_that_wait() -> None:
    """The one that started it ran out of time, and the others have more."""
    with Bridge(Behaviour(script=echo, silent=True)) as bridge:
        with Dialer(bridge.url, KEY, connections_per_relay=10) as dialer:
            given_up = AbortableDeadline(HANG)
            outcomes: list[Any] = []

            def other() -> None:
                outcomes.append(dial(dialer))

            starter = threading.Thread(target=give_up_in_vain, args=(dialer, given_up))
            starter.start()
            wait_until(lambda: bridge.messages, "its opening")
            others = [threading.Thread(target=other) for _ in range(3)]
            for thread in others:
                thread.start()
            pool = dialer._pool
            assert pool is not None
            wait_until(lambda: [each.waiting for each in pool._starting] == [3], "the others wait")
            bridge.behaviour.silent = False
            given_up.abort()
            for thread in [starter, *others]:
                thread.join(HANG)
            assert upgrades(bridge) == 2
            assert len({id_of(sock) for sock in outcomes}) == 1
            for sock in outcomes:
                sock.close()


def test_a_dial_that_waits_for_another_s_relay_keeps_its_own_timeout() -> None:
    with Bridge(Behaviour(silent=True)) as bridge:
        with Dialer(bridge.url, KEY, connections_per_relay=10) as dialer:
            given_up = AbortableDeadline(HANG)
            starter = threading.Thread(target=give_up_in_vain, args=(dialer, given_up))
            starter.start()
            wait_until(lambda: bridge.messages, "its opening")
            with pytest.raises(DialTimeoutError, match=r"waiting for the relay to start") as caught:
                dialer.dial(TARGET, 0.2)
            assert caught.value.timeout == 0.2
            given_up.abort()
            starter.join(HANG)
        assert upgrades(bridge) == 1


def test_a_dial_that_waits_for_another_s_relay_says_what_the_gateway_did_not_pass_on() -> None:
    error = b'{"message": "Internal server error", "connectionId":"a=", "requestId":"b="}'
    with Bridge(Behaviour(answer=error)) as bridge:
        with Dialer(bridge.url, KEY, connections_per_relay=10) as dialer:
            given_up = AbortableDeadline(HANG)
            starter = threading.Thread(target=give_up_in_vain, args=(dialer, given_up))
            starter.start()
            wait_until(lambda: bridge.messages, "its opening")
            pool = dialer._pool
            assert pool is not None
            wait_until(lambda: any(each.progress.gateway_errors for each in pool._starting), "the error")
            with pytest.raises(DialTimeoutError, match=r"did not pass on \d+ .*: see the log of \$default"):
                dialer.dial(TARGET, 0.2)
            given_up.abort()
            starter.join(HANG)


# -- bridges and relays of an older release ---------------------------------------------------------


@pytest.fixture(
    params=[
        (Sharing.OLD_BRIDGE, Code.OK),
        (Sharing.OLD_RELAY, Code.OK),
        (Sharing.OLD_RELAY, Code.NAME_NOT_FOUND),
        (Sharing.OLD_RELAY, Code.TARGET_NOT_ALLOWED),
        (Sharing.OLD_RELAY, Code.TARGET_FAILED),
    ],
    ids=["bridge", "relay", "relay: no such name", "relay: not allowed", "relay: fails"],
)
def older(request: pytest.FixtureRequest) -> Iterator[Bridge]:
    sharing, code = request.param
    with Bridge(Behaviour(script=echo, sharing=sharing, name_code=code)) as bridge:
        yield bridge


def test_with_an_older_stack_each_connection_has_a_relay_of_its_own(older: Bridge) -> None:
    with Dialer(older.url, KEY, connections_per_relay=8) as dialer:
        with dial(dialer) as first, dial(dialer) as second:
            echoes(first)
            echoes(second)
            assert id_of(first) != id_of(second)
            assert dialer.relays == ()
        assert upgrades(older) == 3, "it is asked once"


def test_a_session_that_is_not_shared_is_ended_without_a_byte_of_a_user_s() -> None:
    with Bridge(Behaviour(script=echo, sharing=Sharing.OLD_RELAY)) as bridge:
        with Dialer(bridge.url, KEY, connections_per_relay=8) as dialer, dial(dialer) as sock:
            echoes(sock)
            assert bridge.relay(0).wait_aborted().code is Code.DIALER_RESET


def test_an_older_stack_is_asked_again_after_five_minutes(older: Bridge, clock: Clock) -> None:
    with Dialer(older.url, KEY, connections_per_relay=8, clock=lambda: clock.now) as dialer:
        dial(dialer).close()
        clock.advance(REMEMBERED - 1)
        dial(dialer).close()
        assert upgrades(older) == 3
        clock.advance(2)
        older.behaviour.sharing = Sharing.YES  # it was updated
        with dial(dialer) as sock, dial(dialer) as other:
            assert upgrades(older) == 4
            assert id_of(sock) == id_of(other)


def test_many_dials_at_once_ask_an_older_stack_once(older: Bridge) -> None:
    with Dialer(older.url, KEY, connections_per_relay=20) as dialer:
        socks = in_threads(6, lambda: dial(dialer))
        assert upgrades(older) == 7
        for sock in socks:
            echoes(sock)
            sock.close()


def test_a_dialer_of_single_connections_never_asks(bridge: Bridge) -> None:
    with Dialer(bridge.url, KEY, connections_per_relay=1) as dialer:
        with dial(dialer), dial(dialer):
            assert upgrades(bridge) == 2
            assert dialer.relays == ()
        assert not any(isinstance(wire, SharedWire) for wire in bridge.wires)


# -- a relay of which nothing is heard ---------------------------------------------------------------


class Patient(Progress):
    """Whose first wait, for any sign of the relay, lasts until the test says so."""

    def __init__(self, until: Callable[[], object]) -> None:
        super().__init__(PARSED)
        self._until: Callable[[], object] | None = until

    def wait(self, event: threading.Event, deadline: Deadline) -> None:
        until, self._until = self._until, None
        if until is None:
            super().wait(event, deadline)
        else:
            wait_until(until, "as long as the test says")


def dial_patiently(dialer: Dialer, until: Callable[[], object]) -> tuple[SharedDial, socket.socket]:
    pool = dialer._pool
    assert pool is not None
    made = pool.dial(PARSED, Deadline(HANG), Patient(until))
    assert made is not None
    ours, theirs = tcp_pair()
    made.attach(ours)
    theirs.settimeout(HANG)
    return made, theirs


def test_a_dial_over_a_relay_of_which_nothing_is_heard_is_made_over_another(
    dialer: Dialer, bridge: Bridge
) -> None:
    """A network forgot the connection, say: the dialer itself would find out only after the dial's time."""
    with dial(dialer) as old:
        bridge.wires[0].frozen = True
        made, sock = dial_patiently(dialer, lambda: True)
        assert made.info.id != id_of(old)
        with sock:
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
        bridge.wires[0].frozen = False
        echoes(old)  # it was there all the time
        wait_until(lambda: len(bridge.wires[0].relays) == 2, "the dial that was given up")
        bridge.wires[0].relays[1].wait_over()


def test_a_relay_that_is_heard_of_is_waited_for_though_its_target_takes_long(
    dialer: Dialer, bridge: Bridge
) -> None:
    with dial(dialer) as old:
        bridge.behaviour.holds = True
        (session,) = sessions(dialer)
        before = session.counters.messages_received

        def heard() -> bool:
            if session.counters.messages_received == before:
                return False
            bridge.relay(1).accept()
            return True

        made, sock = dial_patiently(dialer, heard)
        assert made.info.id == id_of(old)
        sock.close()
    assert upgrades(bridge) == 1


# -- the reserved name -----------------------------------------------------------------------------


@pytest.mark.parametrize("port", [1, 5432])
def test_a_user_s_own_dial_of_the_reserved_name_is_refused_here(bridge: Bridge, port: int, kind: Any) -> None:
    with kind.dialer(bridge.url, KEY) as dialer:
        with pytest.raises(TargetNotAllowedError, match="not on the bridge's allow-list"):
            dialer.dial(("Emissary.MUX.invalid", port))
    assert upgrades(bridge) == 0


# -- how relays end ---------------------------------------------------------------------------------


def test_a_relay_that_carries_nothing_is_kept_for_a_while_and_then_ends(bridge: Bridge) -> None:
    with Dialer(bridge.url, KEY, connections_per_relay=2, relay_idle_seconds=0.2) as dialer:
        dial(dialer).close()
        wait_until(lambda: not dialer.relays, "its end")
        bridge.wires[0].wait_over()
        assert bridge.wires[0].aborted is None
        with dial(dialer) as sock:
            echoes(sock)
        assert upgrades(bridge) == 2


def test_a_dial_at_the_very_moment_of_its_end_works(bridge: Bridge) -> None:
    """Over the one that ends or another, whichever comes first; again and again."""
    with Dialer(bridge.url, KEY, connections_per_relay=2, relay_idle_seconds=0) as dialer:
        for number in range(30):
            with dial(dialer) as sock:
                echoes(sock, b"%d" % number)


def test_closing_the_dialer_ends_relays_that_carry_nothing_before_it_returns(bridge: Bridge) -> None:
    with Dialer(bridge.url, KEY, connections_per_relay=2) as dialer:
        with dial(dialer) as sock:
            echoes(sock)
    assert dialer.relays == ()
    assert not bridge.wires[0].session.alive
    assert bridge.wires[0].aborted is None
    with pytest.raises(ClosedError):
        dial(dialer)
    dialer.close()


def test_closing_the_dialer_leaves_a_relay_to_its_connections_until_they_are_closed(bridge: Bridge) -> None:
    with Dialer(bridge.url, KEY, connections_per_relay=2) as dialer:
        sock = dial(dialer)
    echoes(sock)
    (relay,) = dialer.relays
    assert (relay.connections, relay.room) == (1, 0)
    sock.close()
    wait_until(lambda: not dialer.relays, "its end, though it might be kept for a minute")
    bridge.wires[0].wait_over()


def test_a_relay_that_is_being_started_when_the_dialer_is_closed_ends_with_its_connection() -> None:
    with Bridge(Behaviour(script=echo, holds=True)) as bridge:
        dialer = Dialer(bridge.url, KEY, connections_per_relay=2)
        outcome: list[TunnelSocket] = []
        dialling = threading.Thread(target=lambda: outcome.append(dial(dialer)))
        dialling.start()
        relay = bridge.relay()
        dialer.close()
        relay.accept()
        dialling.join(HANG)
        echoes(outcome[0])
        outcome[0].close()
        wait_until(lambda: not dialer.relays, "its end")


def test_closing_never_waits_for_a_relay_that_says_nothing_any_more(
    bridge: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain, "STANDSTILL", 0.1)
    dialer = Dialer(bridge.url, KEY, connections_per_relay=2)
    dial(dialer).close()
    wait_until(lambda: dialer.relays[0].connections == 0, "its end")
    bridge.wires[0].frozen = True
    dialer.close()
    assert len(dialer.relays) == 1
    bridge.relay().end_session(Code.KILLED)
    wait_until(lambda: not dialer.relays, "its end")


def test_a_relay_is_waited_for_only_while_it_may_end_and_only_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Symptom: a command whose target took nothing, or never ended, ended two to four seconds later."""
    monkeypatch.setattr(drain, "STANDSTILL", 0.1)
    monkeypatch.setattr(drain, "RETRANSMISSION", (0.0, 0.0))

    def deaf(relay: Relay) -> None:
        relay.reads = False

    with Bridge(Behaviour(script=deaf)) as bridge:
        dialer = Dialer(bridge.url, KEY, connections_per_relay=2)
        sock = dial(dialer)
        (session,) = sessions(dialer)
        assert not session.worth_waiting_for, "a program uses it"
        sock.sendall(b"x")
        sock.close()
        relay = bridge.relay()
        wait_until(lambda: relay.acknowledges, "the relay has it")
        dialer.close()
        assert not session.worth_waiting_for, "its target has not taken what was waited for before"
        with bridge.wires[0].changed:
            relay.reads = True
        bridge.wires[0].turn()
        wait_until(lambda: session.worth_waiting_for, "its target has all, and may end")
        dialer.close()
        assert not session.worth_waiting_for, "that was waited for in vain"
        relay.write_eof()
        wait_until(lambda: not dialer.relays, "its end")


# -- what is known of them ----------------------------------------------------------------------------


def test_the_relays_are_facts_for_everybody_to_see(dialer: Dialer, bridge: Bridge) -> None:
    assert not dialer.relays
    with dial(dialer) as sock:
        (relay,) = dialer.relays
        assert sock.session is not None
        assert relay == RelayInfo(sock.session.id, 1, 1, sock.session.expires_at, False)
        assert abs(relay.expires_at - time.time() - LIFE) < HANG
        with pytest.raises(AttributeError):
            relay.room = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"connections_per_relay": 0}, "connections_per_relay is 0, no whole number from 1 to 64"),
        ({"connections_per_relay": 65}, "connections_per_relay is 65"),
        ({"connections_per_relay": True}, "connections_per_relay is True"),
        ({"connections_per_relay": 1.5}, r"connections_per_relay is 1\.5"),
        ({"relay_idle_seconds": -1}, "relay_idle_seconds is -1, no number of seconds"),
        ({"relay_idle_seconds": float("nan")}, "relay_idle_seconds is nan"),
        ({"relay_idle_seconds": "60"}, "relay_idle_seconds is '60'"),
    ],
)
def test_numbers_that_are_none_or_out_of_range_are_named(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Dialer("ws://127.0.0.1:1/s", KEY, **options)


def test_the_settings_say_how_relays_are_shared() -> None:
    with Bridge(Behaviour(script=echo)) as bridge:
        environ = {
            "EMISSARY_URL": bridge.url,
            "EMISSARY_AUTH_KEYS": '[{"kid": 7, "data": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="}]',
            "EMISSARY_CONNECTIONS_PER_RELAY": "2",
            "EMISSARY_RELAY_IDLE_SECONDS": "0",
        }
        with Dialer.from_env(environ) as dialer:
            with dial(dialer) as sock, dial(dialer):
                echoes(sock)
                assert [each.connections for each in dialer.relays] == [2]
            wait_until(lambda: not dialer.relays, "its end at once")
