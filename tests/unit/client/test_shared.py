"""One connection of a relay that carries many: how its dial fails, how it ends, and what is known of it."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from emissary_lib.client import drain, relays
from emissary_lib.client.dialer import MAX_IN_FLIGHT, Dialer
from emissary_lib.client.progress import Progress
from emissary_lib.client.socket import SessionInfo, TunnelSocket
from emissary_lib.exceptions import (
    DialError,
    DialTimeoutError,
    EmissaryError,
    RelayDeadlineError,
    TunnelResetError,
)
from emissary_lib.protocol.codes import MEANINGS, Code
from emissary_lib.protocol.targets.allow_list import Target
from emissary_lib.transport.deadline import AbortableDeadline, Deadline
from emissary_lib.tunnel.loopback import tcp_pair
from tests.helpers.bridge import KEY, TARGET, Behaviour, Bridge, Relay, echo
from tests.helpers.kinds import OWN, SHARED, Kind
from tests.helpers.patience import HANG, read_until_it_raises, repeat_until_it_raises, wait_until
from tests.helpers.slow_log import slow_log
from tests.helpers.ws_server import noise

PARSED = Target.parse(TARGET)


@pytest.fixture
def bridge() -> Iterator[Bridge]:
    with Bridge(Behaviour(script=echo)) as bridge:
        yield bridge


@pytest.fixture
def dialer(bridge: Bridge) -> Iterator[Dialer]:
    with Dialer(bridge.url, KEY, connections_per_relay=8) as dialer:
        yield dialer


def dial(dialer: Dialer, timeout: float = HANG) -> TunnelSocket:
    sock = dialer.dial(TARGET, timeout)
    sock.settimeout(HANG)
    return sock


def info_of(sock: TunnelSocket) -> SessionInfo:
    assert sock.session is not None
    return sock.session


def echoes(sock: TunnelSocket, data: bytes = b"hello") -> None:
    sock.sendall(data)
    got = b""
    while len(got) < len(data):
        got += sock.recv(65_536)
    assert got == data


# -- dials that fail ------------------------------------------------------------------------------

#: What a relay may say of a target. The two that are left out are of sessions, never of targets.
REFUSALS = sorted(
    {code for code in Code if code >= Code.TARGET_NOT_ALLOWED}
    - {Code.SESSION_LIMIT, Code.AUTHENTICATION_FAILED}
)


def failure(kind: Kind, code: Code) -> EmissaryError:
    with Bridge(Behaviour(dial_code=code)) as bridge, kind.dialer(bridge.url, KEY) as dialer:
        with pytest.raises(EmissaryError) as caught:
            dial(dialer)
        return caught.value


@pytest.mark.parametrize("code", REFUSALS)
def test_a_refused_target_is_told_as_over_a_session_of_its_own(code: Code) -> None:
    own, shared = failure(OWN, code), failure(SHARED, code)
    assert type(shared) is type(own)
    assert str(shared) == str(own)
    left = {"__notes__": None}
    assert {**vars(shared), **left} == {**vars(own), **left}
    assert [note.partition(" ")[0] for note in shared.__notes__] == ["session"], "to be found in the logs"


def test_a_dial_that_is_refused_leaves_the_others_and_its_relay_alone(dialer: Dialer, bridge: Bridge) -> None:
    with dial(dialer) as sock:
        with pytest.raises(DialError, match=r"cannot reach other\.internal:1: it is not on the bridge's"):
            dialer.dial("other.internal:1", HANG)
        echoes(sock)
        wait_until(lambda: dialer.relays[0].connections == 1, "it is forgotten")
        assert len(bridge.server.requests) == 1


def test_a_dial_whose_time_is_up_is_given_up_and_the_relay_told(bridge: Bridge, dialer: Dialer) -> None:
    with dial(dialer) as sock:
        bridge.behaviour.holds = True
        with pytest.raises(
            DialTimeoutError, match=r"longer than 0\.2 s; it was waiting for the relay"
        ) as caught:
            dial(dialer, 0.2)
        assert caught.value.step == "the relay to reach the target"
        assert bridge.relay(1).wait_aborted().code is Code.DIALER_RESET
        echoes(sock)
        assert dialer.relays[0].connections == 1


def test_a_dial_that_another_thread_aborts_is_given_up(bridge: Bridge, dialer: Dialer) -> None:
    """As asyncio does when a task is cancelled."""
    with dial(dialer) as sock:
        bridge.behaviour.holds = True
        deadline = AbortableDeadline(HANG)

        def dial_in_vain() -> None:
            with pytest.raises(DialTimeoutError):
                dialer._dial_socket(PARSED, deadline)

        dialling = threading.Thread(target=dial_in_vain)
        dialling.start()
        relay = bridge.relay(1)
        deadline.abort()
        dialling.join(HANG)
        assert relay.wait_aborted().code is Code.DIALER_RESET
        echoes(sock)


class Interrupted(Progress):
    """Somebody presses Ctrl-C while a target is waited for."""

    def wait(self, event: threading.Event, deadline: Deadline) -> None:
        if self._step == "target":
            raise KeyboardInterrupt
        super().wait(event, deadline)


@pytest.mark.parametrize("first", [True, False])
def test_a_dial_that_is_interrupted_is_given_up(bridge: Bridge, first: bool) -> None:
    with Dialer(bridge.url, KEY, connections_per_relay=8) as dialer:
        if not first:
            dial(dialer).close()
        bridge.behaviour.holds = True
        pool = dialer._begin_pool()
        with pytest.raises(KeyboardInterrupt):
            pool.dial(PARSED, Deadline(HANG), Interrupted(PARSED))
        assert bridge.relay(0 if first else 1).wait_aborted().code is Code.DIALER_RESET
        bridge.behaviour.holds = False
        with dial(dialer) as sock:
            echoes(sock)
        assert len(bridge.server.requests) == 1


class InterruptedAtTheEnd(Progress):
    """The same, once the target is reached and the caller has not got the connection yet."""

    def end(self, error: BaseException | None = None) -> None:
        if error is None:
            raise KeyboardInterrupt
        super().end(error)


@pytest.mark.parametrize("first", [True, False])
def test_a_dial_that_is_interrupted_when_it_is_answered_is_given_up(bridge: Bridge, first: bool) -> None:
    """Symptom: nobody had the connection, and target and relay were kept for the relay's whole life."""
    with Dialer(bridge.url, KEY, connections_per_relay=8) as dialer:
        if not first:
            dial(dialer).close()
        pool = dialer._begin_pool()
        with pytest.raises(KeyboardInterrupt):
            pool.dial(PARSED, Deadline(HANG), InterruptedAtTheEnd(PARSED))
        assert bridge.relay(0 if first else 1).wait_aborted().code is Code.DIALER_RESET
        with dial(dialer) as sock:
            echoes(sock)
        assert len(bridge.server.requests) == 1


def test_a_dial_that_nobody_attaches_is_given_up_and_one_that_is_attached_is_not(
    dialer: Dialer, bridge: Bridge
) -> None:
    pool = dialer._begin_pool()
    dropped = pool.dial(PARSED, Deadline(HANG), Progress(PARSED))
    kept = pool.dial(PARSED, Deadline(HANG), Progress(PARSED))
    assert dropped
    assert kept
    near, far = tcp_pair()
    with far:
        kept.attach(near)
        del dropped, kept
        assert bridge.relay(0).wait_aborted().code is Code.DIALER_RESET
        far.settimeout(HANG)
        far.sendall(b"hello")
        assert far.recv(5, socket.MSG_WAITALL) == b"hello"


# -- a session that is lost while it is dialled over it ---------------------------------------------

LOST = [Code.DIALER_GONE, Code.RELAY_GONE, Code.UNKNOWN_SESSION, Code.RELAY_DEADLINE]


@pytest.mark.parametrize("code", LOST)
def test_a_session_that_is_lost_before_the_answer_is_started_over(code: Code) -> None:
    with Bridge(Behaviour(script=echo, holds=True)) as bridge:
        with Dialer(bridge.url, KEY, connections_per_relay=8) as dialer:
            outcome: list[TunnelSocket] = []
            dialling = threading.Thread(target=lambda: outcome.append(dial(dialer)))
            dialling.start()
            relay = bridge.relay()
            wait_until(lambda: dialer.relays, "the session is open")
            bridge.behaviour.holds = False
            relay.end_session(code)
            dialling.join(HANG)
            echoes(outcome[0])
            outcome[0].close()
            assert len(bridge.server.requests) == 2


def test_what_is_lost_until_there_is_no_time_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relays, "back_off", lambda: iter([10 * HANG]))
    with Bridge(Behaviour(holds=True)) as bridge:
        with Dialer(bridge.url, KEY, connections_per_relay=8) as dialer:

            def lose() -> None:
                wait_until(lambda: dialer.relays, "the session is open: before, it would be opened again")
                bridge.relay().end_session(Code.RELAY_GONE, "it crashed")

            losing = threading.Thread(target=lose)
            losing.start()
            with pytest.raises(
                DialError, match=r"cannot reach db.*: it crashed \(RELAY_GONE\); see the logs"
            ):
                dial(dialer)
            losing.join(HANG)


def test_a_session_that_is_killed_is_not_started_over() -> None:
    with Bridge(Behaviour(holds=True)) as bridge:
        with Dialer(bridge.url, KEY, connections_per_relay=8) as dialer:
            killing = threading.Thread(target=lambda: bridge.relay().end_session(Code.KILLED))
            killing.start()
            with pytest.raises(DialError, match=r"\(KILLED\)") as caught:
                dial(dialer)
            assert caught.value.code is Code.KILLED
            killing.join(HANG)
            assert len(bridge.server.requests) == 1


# -- a connection that is cut off ----------------------------------------------------------------------


@pytest.mark.parametrize("said", ["", "an operator"])
def test_a_session_s_end_is_that_of_each_of_its_connections(
    dialer: Dialer, bridge: Bridge, said: str
) -> None:
    socks = [dial(dialer) for _ in range(3)]
    bridge.relay().reset(Code.KILLED, said)
    for sock in socks:
        with pytest.raises(TunnelResetError) as caught:
            sock.recv(1)
        words = said or MEANINGS[Code.KILLED]
        assert f"the tunnel to {TARGET} was cut off: {words} (KILLED). " in str(caught.value)
        assert caught.value.code is Code.KILLED
        sock.close()


def test_the_relays_time_limit_has_an_error_of_its_own(dialer: Dialer, bridge: Bridge) -> None:
    with dial(dialer) as sock:
        bridge.relay().reset(Code.RELAY_DEADLINE)
        with pytest.raises(RelayDeadlineError, match=r"15-minute limit .*dial again"):
            sock.recv(1)
    with dial(dialer) as sock:
        echoes(sock)


def test_a_target_s_reset_is_its_own_connection_s_alone(dialer: Dialer, bridge: Bridge) -> None:
    with dial(dialer) as other, dial(dialer) as sock:
        bridge.relay(1).reset()
        with pytest.raises(TunnelResetError, match="TARGET_RESET"):
            sock.recv(1)
        assert info_of(other).error is None
        echoes(other)


def test_who_meets_a_reset_finds_the_cause_there_already(dialer: Dialer, bridge: Bridge) -> None:
    """Whoever uses the bare descriptor asks the session, at once."""
    for number in range(20):
        with dial(dialer) as sock, sock.dup() as bare:
            bare.settimeout(HANG)
            bridge.relay(number).reset()
            with pytest.raises(ConnectionResetError):
                bare.recv(1)
            error = info_of(sock).error
        assert error is not None
        assert error.code is Code.TARGET_RESET


def test_a_cut_tells_what_was_lost_with_it() -> None:
    def deaf(relay: Relay) -> None:
        relay.reads = False

    with Bridge(Behaviour(script=deaf)) as bridge:
        with Dialer(bridge.url, KEY, connections_per_relay=8) as dialer, dial(dialer) as sock:
            sock.sendall(b"x" * 10_000)
            relay = bridge.relay()
            wait_until(lambda: info_of(sock).transferred[0] == 10_000, "all is read")
            wait_until(lambda: relay.wire.session.buffered[1] == 0, "it came")
            relay.reset()
            with pytest.raises(TunnelResetError):
                repeat_until_it_raises(lambda: sock.recv(1))
            error = info_of(sock).error
            assert error is not None
            wait_until(lambda: error.lost, "what is lost is told when the tunnel is over")
            assert (error.lost, error.whole) == (10_000, False)


def test_every_byte_comes_before_the_reset(dialer: Dialer, bridge: Bridge) -> None:
    data = noise(500_000)
    with dial(dialer) as sock:
        relay = bridge.relay()
        relay.write(data)
        relay.flush()
        relay.reset()
        received = bytearray()
        with pytest.raises(TunnelResetError):
            read_until_it_raises(lambda: sock.recv(10_000), received)
        assert received == data


def test_a_reset_of_ours_resets_that_target_alone(dialer: Dialer, bridge: Bridge) -> None:
    with dial(dialer) as other:
        sock = dial(dialer)
        bridge.relay(1).write(b"nobody reads this")
        bridge.relay(1).flush()
        sock.recv(1)
        sock.close()  # with bytes unread
        assert bridge.relay(1).wait_aborted().code is Code.DIALER_RESET
        echoes(other)


# -- a log that is slow ----------------------------------------------------------------------------------


def test_who_logs_an_end_slowly_does_not_hold_up_the_neighbours(dialer: Dialer, bridge: Bridge) -> None:
    with slow_log("emissary_lib.tunnel", "was cut off") as log, dial(dialer) as other, dial(dialer) as sock:
        bridge.relay(1).reads = False
        sock.sendall(b"lost")
        wait_until(lambda: info_of(sock).transferred[0] == 4, "it is under way")
        bridge.relay(1).reset()
        assert log.blocked.wait(HANG)
        for number in range(10):
            echoes(other, noise(100_000 + number))
        with dial(dialer) as further:
            echoes(further)


def test_who_logs_slowly_that_a_relay_ends_has_the_bytes_go_on(dialer: Dialer, bridge: Bridge) -> None:
    with slow_log("emissary_lib.tunnel", "ends in 30 s") as log, dial(dialer) as one, dial(dialer) as two:
        bridge.relay().go_away(30.0)
        assert log.blocked.wait(HANG)
        for sock in (one, two):
            echoes(sock, noise(100_000))


# -- what is known of it ---------------------------------------------------------------------------------


def test_what_a_connection_has_transferred_is_its_own_and_the_counters_are_the_relay_s(
    dialer: Dialer,
) -> None:
    with dial(dialer) as one, dial(dialer) as two:
        echoes(one, b"x" * 1000)
        echoes(two, b"y" * 50)
        # Counted once the socket has them, and so perhaps after they were read.
        wait_until(lambda: info_of(one).transferred == (1000, 1000), "the one's own")
        wait_until(lambda: info_of(two).transferred == (50, 50), "the other's own")
        assert info_of(one).counters is info_of(two).counters
        assert info_of(one).counters.bytes_sent > 1050
        assert info_of(one).id == info_of(two).id
        assert info_of(one).target == PARSED


def test_an_end_that_was_announced_before_the_dial_was_over_is_told() -> None:
    with Bridge(Behaviour(script=echo, holds=True)) as bridge:
        with Dialer(bridge.url, KEY, connections_per_relay=8) as dialer:
            outcome: list[TunnelSocket] = []
            dialling = threading.Thread(target=lambda: outcome.append(dial(dialer)))
            dialling.start()
            relay = bridge.relay()
            relay.go_away(30.0)
            wait_until(lambda: [each for each in dialer.relays if each.going_away], "it is heard")
            relay.accept()
            dialling.join(HANG)
            with outcome[0] as sock:
                assert info_of(sock).going_away
                assert info_of(sock).expires_at <= time.time() + 30


# -- threads, descriptors, places ---------------------------------------------------------------------------


def test_connections_have_no_threads_of_their_own(dialer: Dialer) -> None:
    with dial(dialer) as first:
        echoes(first)
        before = names()
        socks = [dial(dialer) for _ in range(7)]
        for sock in socks:
            echoes(sock)
        assert names() == before
        for sock in socks:
            sock.close()


def names() -> list[str]:
    ours = (each.name for each in threading.enumerate() if each.name.startswith("emissary"))
    return sorted(ours)


def test_nothing_is_left_of_connections_that_are_over(dialer: Dialer) -> None:
    with dial(dialer) as first:
        for _ in range(50):
            with dial(dialer) as sock:
                echoes(sock)
        assert dialer._pool is not None
        (session,) = dialer._pool.sessions
        wait_until(lambda: session.connections == 1, "their ends")
        wait_until(lambda: len(session._dials) == 1, "they are forgotten")
        wait_until(lambda: len([each for each in drain._open if dialer in each.owners]) == 1, "here, too")
        echoes(first)


def test_places_come_back_when_a_relay_has_ended(bridge: Bridge) -> None:
    dialer = Dialer(bridge.url, KEY, connections_per_relay=8)
    for _ in range(3):
        with dial(dialer) as sock:
            echoes(sock, b"x" * 100_000)
    dialer.close()
    wait_until(lambda: not dialer.relays, "the end of the relay")
    assert dialer._in_flight.free == MAX_IN_FLIGHT


def test_many_threads_share_relays_without_mixing_bytes_up(bridge: Bridge) -> None:
    with Dialer(bridge.url, KEY, connections_per_relay=8) as dialer:
        failures: list[object] = []

        def work(number: int) -> None:
            try:
                for turn in range(4):
                    with dial(dialer) as sock:
                        echoes(sock, f"{number} {turn} ".encode() * 3000)
            except BaseException as exc:
                failures.append(exc)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(HANG)
        assert failures == []
        assert len(bridge.server.requests) <= 16


# -- programs that hang up, and closes ----------------------------------------------------------------


def test_a_forwarded_dial_whose_program_hangs_up_is_given_up_and_the_relay_lives_on(
    dialer: Dialer, bridge: Bridge, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "emissary_lib.forward")
    with dial(dialer) as other:
        bridge.behaviour.holds = True
        with dialer.forward(TARGET) as address:
            program = socket.create_connection(address, HANG)
            relay = bridge.relay(1)
            program.close()
            assert relay.wait_aborted().code is Code.DIALER_RESET
        assert "the program has hung up" in caplog.text
        echoes(other)


def test_what_was_written_arrives_before_the_dialer_is_closed(bridge: Bridge) -> None:
    data = noise(1_000_000)
    bridge.behaviour.script = lambda relay: relay.end_with_dialer()
    with Dialer(bridge.url, KEY, connections_per_relay=8) as dialer:
        with dial(dialer) as one, dial(dialer) as two:
            one.sendall(data)
            two.sendall(data[::-1])
    assert bridge.relay(0).arrived == data
    assert bridge.relay(1).arrived == data[::-1]
    assert not bridge.wires[0].session.alive, "and the bridge was told of the relay's end"


def test_a_port_that_another_process_serves_takes_its_relays_with_it(bridge: Bridge) -> None:
    """Symptom: that process leaves without an orderly exit, and its relays were kept until found dead."""
    with Dialer(bridge.url, KEY, connections_per_relay=8) as dialer:
        with dialer.forward(TARGET, process=True) as address:
            for _ in range(2):
                with socket.create_connection(address, HANG) as sock:
                    sock.sendall(b"x")
                    assert sock.recv(1) == b"x"
    assert len(bridge.server.requests) == 1
    bridge.wires[0].wait_over()
    assert bridge.wires[0].aborted is None


def test_streams_of_asyncio_share_a_relay_and_cancelling_gives_one_dial_up(
    dialer: Dialer, bridge: Bridge
) -> None:
    async def main() -> None:
        reader, writer = await dialer.open_connection(TARGET)
        bridge.behaviour.holds = True
        other = asyncio.create_task(dialer.open_connection(TARGET))
        relay = await asyncio.to_thread(bridge.relay, 1)
        other.cancel()
        with pytest.raises(asyncio.CancelledError):
            await other
        assert (await asyncio.to_thread(relay.wait_aborted)).code is Code.DIALER_RESET
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        assert dialer.session_of(writer).id == dialer.relays[0].id
        writer.close()
        await writer.wait_closed()

    asyncio.run(asyncio.wait_for(main(), HANG))
    assert len(bridge.server.requests) == 1
