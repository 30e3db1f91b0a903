"""The driver of a session: two real tunnels back to back, and one with a link that the test plays."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from emissary_lib import system
from emissary_lib.exceptions import LocalResourceError
from emissary_lib.protocol.codes import MEANINGS, Code
from emissary_lib.protocol.role import Role
from emissary_lib.protocol.session.events import Aborted, Finished
from emissary_lib.protocol.session.session import Outgoing
from emissary_lib.protocol.wire.frames import Flag, FrameType
from emissary_lib.protocol.wire.payloads import Ended, Reset
from emissary_lib.tunnel.driver import Tunnel
from emissary_lib.tunnel.loopback import reset, tcp_pair
from emissary_lib.tunnel.shutdown import ShutdownPolicy
from tests.helpers.memory_transport import Faults
from tests.helpers.patience import HANG, read_until_it_raises, repeat_until_it_raises, wait_until
from tests.helpers.tunnels import (
    CAPACITY,
    USERS,
    FakeLink,
    Running,
    back_to_back,
    read_to_end,
    send_all,
    session_of,
)
from tests.helpers.ws_server import noise

#: TLS's last word, as OpenSSL writes it in TLS 1.3.
ALERT = bytes.fromhex("17 03 03 00 13") + bytes(19)


@pytest.fixture(autouse=True)
def closed_users() -> Iterator[None]:
    yield
    while USERS:
        USERS.pop().close()


# -- bytes --------------------------------------------------------------------------------------


def test_bytes_cross_both_ways_at_once_and_each_direction_ends_on_its_own() -> None:
    up, down = noise(1_000_000), noise(1_000_000)
    with back_to_back() as (dialer, relay):
        pairs = ((dialer.user, up), (relay.user, down))
        senders = [threading.Thread(target=send_all, args=pair) for pair in pairs]
        for sender in senders:
            sender.start()
        got: list[bytes] = []
        reader = threading.Thread(target=lambda: got.append(read_to_end(relay.user)))
        reader.start()
        assert read_to_end(dialer.user) == down
        for thread in (*senders, reader):
            thread.join(HANG)
        assert got == [up]
        dialer.join()
        relay.join()
        assert dialer.events == relay.events == [Finished(Code.OK)] or isinstance(dialer.events[-1], Finished)
        assert dialer.aborted is None
        assert relay.aborted is None


@pytest.mark.skipif(not system.TELLS_UNSENT, reason="what a relay does; this kernel does not tell")
def test_the_end_of_a_stream_is_acknowledged_once_the_target_s_kernel_has_all() -> None:
    """Symptom: what a relay had for a target that took nothing was lost with it, and its dialer had left."""
    with back_to_back(holds_end=True, fill=True) as (dialer, relay):
        send_all(dialer.user, b"question")
        wait_until(lambda: dialer.tunnel.untaken, "the relay has all bytes")
        relay.user.recv(relay.filled // 3, socket.MSG_WAITALL)
        wait_until(lambda: relay.session.receive_ended, "the relay's kernel has them")
        assert relay.session.end_waits  # the target's does not
        assert read_to_end(relay.user).endswith(b"question")
        wait_until(lambda: dialer.session.end_acked, "the end is acknowledged")
        assert not dialer.tunnel.untaken


@pytest.mark.parametrize("seed", range(3))
def test_bytes_survive_reordering_and_duplication(seed: int) -> None:
    data = noise(600_000)
    with back_to_back(Faults(duplication=0.2, delay=0.4), seed=seed) as (dialer, relay):
        sender = threading.Thread(target=send_all, args=(dialer.user, data))
        sender.start()
        assert read_to_end(relay.user) == data
        sender.join(HANG)


def test_a_reader_that_stops_shuts_the_window_and_a_blocked_tunnel_is_idle() -> None:
    with back_to_back() as (dialer, relay):
        dialer.user.settimeout(0.2)
        data = bytes(65_536)
        pieces: list[int] = []
        with pytest.raises(TimeoutError):
            repeat_until_it_raises(lambda: pieces.append(dialer.user.send(data)))
        wait_until(lambda: not dialer.session.send_room, "the window is shut")
        for running in (dialer, relay):
            assert all(size <= CAPACITY for size in running.session.buffered)
        before = time.process_time_ns()
        threading.Event().wait(0.3)
        burnt = time.process_time_ns() - before
        assert burnt < 0.15e9, f"a blocked tunnel burns the processor: {burnt / 1e9:.2f} s in 0.3 s"
        received = 0
        while received < sum(pieces):
            received += len(relay.user.recv(65_536))
        assert received == sum(pieces)


# -- the end ------------------------------------------------------------------------------------


def test_a_reset_socket_resets_the_other_end_and_is_never_an_end_of_file() -> None:
    with back_to_back() as (dialer, relay):
        relay.user.sendall(b"half an ans")
        assert dialer.user.recv(100) == b"half an ans"
        reset(relay.user)
        with pytest.raises(ConnectionResetError):
            dialer.user.recv(100)
        dialer.join()
        assert dialer.aborted
        assert dialer.aborted.code is Code.TARGET_RESET


def test_a_reset_comes_after_every_byte_though_the_reader_is_slow() -> None:
    link = FakeLink()
    dialer = Running(session_of(Role.DIALER, capacity=8 << 20), link)
    data = noise(4 << 20)
    for at in range(0, len(data), 65_536):
        link.give(FrameType.DATA, data[at : at + 65_536], offset=at)
    link.give(FrameType.RESET, Reset(Code.TARGET_RESET, "gone").encode())
    link.give(FrameType.ENDED, Ended(Code.TARGET_RESET, 0, len(data)).encode())
    wait_until(lambda: dialer.aborted is not None, "the reset arrives")
    received = bytearray()

    def read_slowly() -> bytes:
        threading.Event().wait(0.002)  # slow enough for the tunnel to be far ahead
        return dialer.user.recv(16_384)

    with pytest.raises(ConnectionResetError):
        read_until_it_raises(read_slowly, received)
    assert bytes(received) == data
    dialer.user.close()
    dialer.join()


def test_a_reset_tunnel_ends_when_the_user_closes_without_reading() -> None:
    link = FakeLink()
    dialer = Running(session_of(Role.DIALER, capacity=8 << 20), link)
    for at in range(0, 4 << 20, 65_536):
        link.give(FrameType.DATA, bytes(65_536), offset=at)
    link.give(FrameType.RESET, Reset(Code.TARGET_RESET, "gone").encode())
    wait_until(lambda: dialer.aborted is not None, "the reset arrives")
    dialer.user.close()
    dialer.join()
    assert link.released


class BusyLink(FakeLink):
    """A link whose first message of the program's bytes goes out only when the test lets it."""

    def __init__(self) -> None:
        super().__init__()
        self.sending = threading.Event()
        self.gate = threading.Event()

    def send(self, message: Outgoing) -> None:
        super().send(message)
        if self.sent[-1].type is FrameType.DATA and not self.sending.is_set():
            self.sending.set()
            assert self.gate.wait(HANG)


def test_an_end_that_the_program_has_written_by_the_time_of_a_reset_counts() -> None:
    """Symptom: a target that resets behind a good session alarmed, now and then, on a busy machine."""
    link = BusyLink()
    dialer = Running(session_of(Role.DIALER), link)
    try:
        dialer.user.sendall(b"farewell")
        assert link.sending.wait(HANG)  # and until the gate opens the driver reads nothing
        dialer.user.shutdown(socket.SHUT_WR)
        link.give(FrameType.RESET, Reset(Code.TARGET_RESET, "gone").encode(), ack=8)
        wait_until(lambda: dialer.aborted is not None, "the reset arrives")
    finally:
        link.gate.set()
    dialer.user.close()
    dialer.join()
    assert dialer.aborted
    assert dialer.aborted.whole


def test_a_target_that_does_not_read_does_not_hold_the_relay_beyond_its_time() -> None:
    link = FakeLink()
    relay = Running(
        session_of(Role.RELAY, capacity=8 << 20), link, shutdown=ShutdownPolicy(time.monotonic() + 0.5)
    )
    for at in range(0, 8 << 20, 65_536):
        link.give(FrameType.DATA, bytes(65_536), offset=at)
    link.give(FrameType.RESET, Reset(Code.DIALER_RESET, "gone").encode())
    relay.thread.join(HANG)
    alive = relay.thread.is_alive()
    relay.user.close()
    relay.join()
    assert not alive


@pytest.mark.parametrize("role", list(Role))
def test_a_relay_says_goodbye_when_it_returns_and_a_dialer_as_soon_as_all_is_over(role: Role) -> None:
    """Its place among the sessions is given to another when it has said goodbye."""
    link, size, later = FakeLink(answers_end=False), 8 << 20, time.monotonic() + 10 * HANG
    shutdown = ShutdownPolicy(later, later) if role is Role.RELAY else None
    side = Running(session_of(role, capacity=size), link, shutdown=shutdown)
    side.user.shutdown(socket.SHUT_WR)
    wait_until(lambda: side.session.send_ended, "its stream has ended")
    for at in range(0, size, 65_536):
        link.give(FrameType.DATA, bytes(65_536), offset=at)
    finals = (size + 1, 1) if role is Role.RELAY else (1, size + 1)
    link.give(FrameType.ENDED, Ended(Code.OK, *finals).encode())
    wait_until(lambda: Finished(Code.OK) in side.events, "the end is told")
    if role is Role.DIALER:
        wait_until(lambda: link.closed, "the goodbye")
    assert side.thread.is_alive(), "its socket takes nothing"
    assert link.closed is (role is Role.DIALER)
    assert len(read_to_end(side.user)) == size
    side.join()
    assert link.closed


def test_at_the_time_limit_the_target_is_let_go_of_though_the_bridge_confirms_nothing() -> None:
    link, ends_at = FakeLink(answers_end=False), time.monotonic() + 0.2
    relay = Running(session_of(Role.RELAY, life=0.2), link, shutdown=ShutdownPolicy(ends_at, ends_at + HANG))
    with pytest.raises(ConnectionResetError):
        relay.user.recv(1)
    assert relay.thread.is_alive()  # it goes on telling the bridge, for five seconds
    relay.join()


def test_a_relay_that_has_to_leave_does_not_repeat_its_end() -> None:
    link, now = FakeLink(answers_end=False), time.monotonic()
    relay = Running(session_of(Role.RELAY), link, shutdown=ShutdownPolicy(now, now))
    relay.tunnel.abort(Code.KILLED, "enough")
    relay.join()
    assert sum(frame.type is FrameType.END for frame in link.sent) <= 1


def test_a_target_is_let_go_of_before_the_bridge_has_confirmed_the_dialers_reset() -> None:
    link = FakeLink(answers_end=False)
    relay = Running(
        session_of(Role.RELAY), link, shutdown=ShutdownPolicy(time.monotonic() + 60, time.monotonic() + 60)
    )
    link.give(FrameType.DATA, b"the last words", offset=0)
    link.give(FrameType.RESET, Reset(Code.DIALER_RESET, "gone").encode())
    assert relay.user.recv(100) == b"the last words"
    with pytest.raises(ConnectionResetError):
        relay.user.recv(1)
    assert relay.thread.is_alive()
    link.give(FrameType.ENDED, Ended(Code.DIALER_RESET, 0, 0).encode())
    relay.join()


def test_a_user_who_resets_is_noticed_though_nothing_more_fits_into_the_tunnel() -> None:
    link = FakeLink()
    dialer = Running(session_of(Role.DIALER), link)
    dialer.user.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            dialer.user.send(bytes(65_536))
    wait_until(lambda: not dialer.session.send_room, "nothing more fits")
    reset(dialer.user)
    wait_until(lambda: dialer.aborted is not None, "the reset is noticed")
    assert dialer.aborted
    assert dialer.aborted.code is Code.DIALER_RESET
    dialer.join()


def test_the_time_limit_cuts_an_open_tunnel_off() -> None:
    link = FakeLink()
    relay = Running(session_of(Role.RELAY, life=0.1), link, shutdown=ShutdownPolicy(time.monotonic() + 0.1))
    with pytest.raises(ConnectionResetError):
        relay.user.recv(1)
    relay.join()
    assert relay.aborted == Aborted(Code.RELAY_DEADLINE, MEANINGS[Code.RELAY_DEADLINE])


def test_a_lost_link_that_is_refused_for_good_is_a_reset_with_its_cause() -> None:
    link = FakeLink()
    dialer = Running(session_of(Role.DIALER), link)
    link.hang_up()
    with pytest.raises(ConnectionResetError):
        dialer.user.recv(1)
    dialer.join()
    assert dialer.aborted == Aborted(Code.UNKNOWN_SESSION, "HTTP status 409")


def test_a_link_that_fails_in_an_unforeseen_way_is_a_reset_too() -> None:
    class Broken(FakeLink):
        def recv(self) -> bytes:
            raise ZeroDivisionError("a bug")

    reported: list[object] = []
    hook, threading.excepthook = threading.excepthook, reported.append
    try:
        dialer = Running(session_of(Role.DIALER), Broken())
        with pytest.raises(ConnectionResetError):
            dialer.user.recv(1)
        dialer.join()
    finally:
        threading.excepthook = hook
    assert dialer.aborted
    assert "ZeroDivisionError" in dialer.aborted.reason
    assert reported  # and the bug is not hidden


def test_a_driver_that_fails_resets_its_socket() -> None:
    class Broken(FakeLink):
        def send(self, message: Outgoing) -> None:
            raise ZeroDivisionError("a bug")

    reported: list[object] = []
    hook, threading.excepthook = threading.excepthook, reported.append
    link = Broken()
    try:
        dialer = Running(session_of(Role.DIALER), link)
        dialer.user.sendall(b"x")
        with pytest.raises(ConnectionResetError):
            dialer.user.recv(1)
        dialer.join()
    finally:
        threading.excepthook = hook
    assert reported
    assert link.released


def test_a_socket_that_the_user_closes_half_way_is_a_reset_for_the_peer() -> None:
    link = FakeLink()
    dialer = Running(session_of(Role.DIALER), link)
    link.give(FrameType.DATA, b"unread")
    select.select([dialer.user], [], [], HANG)
    dialer.user.close()  # with unread bytes: the kernel resets
    dialer.join()
    resets = [Reset.decode(frame.payload) for frame in link.sent if frame.type is FrameType.RESET]
    assert [r.code for r in resets] == [Code.DIALER_RESET]


def test_what_a_program_wrote_before_it_reset_its_socket_arrives_ahead_of_the_reset() -> None:
    """Symptom: psql over TLS on a slow way: its last record was lost, and exec ended with 9."""

    def resets() -> list[Reset]:
        return [Reset.decode(frame.payload) for frame in link.sent if frame.type is FrameType.RESET]

    link = FakeLink()
    dialer = Running(session_of(Role.DIALER), link)
    link.give(FrameType.DATA, b"unread")
    select.select([dialer.user], [], [], HANG)
    dialer.user.sendall(b"last words")
    dialer.user.close()  # with unread bytes: the kernel resets
    wait_until(lambda: not dialer.session.send_room, "the reset is noticed")
    assert (resets(), dialer.tunnel.undelivered_bytes) == ([], len(b"last words"))
    link.give(FrameType.ACK, ack=len(b"last words"))
    dialer.join()
    assert [each.code for each in resets()] == [Code.DIALER_RESET]
    assert dialer.tunnel.undelivered_bytes == 0


def test_bytes_of_a_closed_socket_still_go_out() -> None:
    data = noise(300_000)
    with back_to_back() as (dialer, relay):
        sender = threading.Thread(target=send_all, args=(dialer.user, data), kwargs={"close": True})
        sender.start()
        assert read_to_end(relay.user) == data
        sender.join(HANG)
        relay.user.close()
        dialer.join()
        relay.join()
        assert dialer.aborted is None


def test_abort_from_another_thread_wakes_a_tunnel_that_waits() -> None:
    link = FakeLink()
    dialer = Running(session_of(Role.DIALER), link)
    dialer.tunnel.abort(Code.KILLED, "enough")
    with pytest.raises(ConnectionResetError):
        dialer.user.recv(1)
    dialer.join()
    assert dialer.aborted == Aborted(Code.KILLED, "enough")
    dialer.tunnel.wake()  # nobody is there any more; nothing happens
    dialer.tunnel.message_refused()


def test_an_end_that_nobody_confirms_does_not_keep_the_tunnel() -> None:
    link = FakeLink(answers_end=False)
    dialer = Running(session_of(Role.DIALER), link)
    began = time.monotonic()
    dialer.tunnel.abort(Code.KILLED, "enough")
    dialer.join()
    assert time.monotonic() - began > 4  # docs/protocol.md section 6: 5 s
    assert sum(frame.type is FrameType.END for frame in link.sent) > 1


def test_unread_bytes_and_unacknowledged_ones_are_not_idle() -> None:
    link = FakeLink()
    ours, user = tcp_pair()
    session = session_of(Role.DIALER)
    tunnel = Tunnel(session, link, ours)
    before = tunnel.idle
    assert before
    user.sendall(b"x")
    select.select([ours], [], [], HANG)
    assert not tunnel.idle  # the program may exit right now: nobody has even read it yet
    thread = threading.Thread(target=tunnel.run)
    thread.start()
    wait_until(lambda: any(frame.payload == b"x" for frame in link.sent), "the byte is sent")
    assert not tunnel.idle
    link.give(FrameType.ACK, ack=1)
    wait_until(lambda: tunnel.idle, "the acknowledgement arrives")
    reset(user)
    thread.join(HANG)
    assert not tunnel.idle  # it was cut off: whoever runs it has to say so first


def test_leaving_passes_on_what_was_written_and_then_the_end_of_the_stream() -> None:
    data = noise(200_000)
    with back_to_back() as (dialer, relay):
        sent = threading.Thread(target=dialer.user.sendall, args=(data,))
        sent.start()
        got: list[bytes] = []
        reader = threading.Thread(target=lambda: got.append(read_to_end(relay.user)))
        reader.start()
        sent.join(HANG)
        dialer.tunnel.begin_drain()
        reader.join(HANG)
        assert got == [data]


def test_what_has_not_arrived_is_counted_in_the_session_and_in_the_kernel() -> None:
    link = FakeLink()
    dialer = Running(session_of(Role.DIALER), link)
    written = CAPACITY + 30_000  # more than the session holds; nobody acknowledges any of it
    dialer.user.sendall(bytes(written))
    wait_until(lambda: dialer.tunnel.undelivered_bytes == written, "all of it counts")
    wait_until(lambda: dialer.session.counters.bytes_sent == CAPACITY, "what fits is sent")
    link.give(FrameType.ACK, ack=CAPACITY)
    wait_until(
        lambda: dialer.tunnel.undelivered_bytes == written - CAPACITY, "what was acknowledged does not"
    )
    reset(dialer.user)
    dialer.join()
    assert dialer.tunnel.undelivered_bytes == written - CAPACITY, "what was lost with the cut still counts"


def ended_by_its_program(link: FakeLink, written: bytes = b"question") -> Running:
    """A dialer's tunnel whose program has written this, ended its stream, and was heard of by nobody yet."""
    dialer = Running(session_of(Role.DIALER), link)
    send_all(dialer.user, written)
    wait_until(lambda: dialer.session.sent == len(written) + 1, "all is sent, the end too")
    return dialer


def test_an_end_that_the_bridge_alone_has_told_of_leaves_nothing_behind() -> None:
    """Symptom: an alarm for the last bytes of every sixth program whose target had ended the stream first."""
    link = FakeLink()
    dialer = ended_by_its_program(link)
    link.give(FrameType.DATA, b"answer", flags=Flag.FIN, ack=len(b"question"))
    wait_until(lambda: dialer.tunnel.untaken, "the relay has all bytes")
    link.give(FrameType.ENDED, Ended(Code.OK, len(b"question") + 1, len(b"answer") + 1).encode())
    wait_until(lambda: Finished(Code.OK) in dialer.events, "the end is told")
    assert (dialer.tunnel.idle, dialer.tunnel.untaken, dialer.tunnel.undelivered_bytes) == (True, False, 0)
    assert read_to_end(dialer.user) == b"answer"
    dialer.join()
    assert (dialer.tunnel.untaken, dialer.tunnel.undelivered_bytes) == (False, 0)


def test_while_a_reset_is_waited_for_what_has_not_arrived_counts() -> None:
    """Symptom: whoever exited then was told nothing, and was gone before the target's reset came."""
    link = FakeLink(answers_end=False)
    dialer = ended_by_its_program(link)
    link.give(FrameType.ENDED, Ended(Code.TARGET_RESET, 0, 0).encode())
    wait_until(lambda: not dialer.session.alive, "the bridge's word")
    assert dialer.aborted is None, "RESET has to tell first whether anything is missing"
    assert (dialer.tunnel.idle, dialer.tunnel.undelivered_bytes) == (False, len(b"question"))
    link.give(FrameType.RESET, Reset(Code.TARGET_RESET, "").encode(), ack=len(b"question"))
    dialer.join()
    assert dialer.aborted == Aborted(Code.TARGET_RESET, MEANINGS[Code.TARGET_RESET], whole=True)
    assert (dialer.tunnel.untaken, dialer.tunnel.undelivered_bytes) == (False, 0)


@pytest.mark.parametrize(("code", "lost"), [(Code.TARGET_RESET, 0), (Code.RELAY_DEADLINE, len(ALERT))])
def test_tls_s_last_word_is_not_missed_where_the_target_was_gone_before_it(code: Code, lost: int) -> None:
    link = FakeLink(answers_end=False)
    dialer = ended_by_its_program(link, b"question" + ALERT)
    link.give(FrameType.RESET, Reset(code, "").encode(), ack=len(b"question"))
    wait_until(lambda: dialer.aborted is not None, "the reset arrives")
    assert (dialer.tunnel.untaken, dialer.tunnel.undelivered_bytes) == (False, lost)
    link.give(FrameType.ENDED, Ended(code, 0, 0).encode())
    dialer.join()


def test_a_program_that_broke_its_connection_behind_its_end_is_owed_nothing_that_has_arrived() -> None:
    """The bridge may take long to confirm it, and its end would be missed for as long."""
    link = FakeLink(answers_end=False)
    dialer = ended_by_its_program(link)
    link.give(FrameType.ACK, ack=len(b"question"))
    wait_until(lambda: dialer.tunnel.untaken, "the relay has all bytes")
    reset(dialer.user)
    link.give(FrameType.DATA, b"for nobody")
    wait_until(lambda: dialer.aborted is not None, "the broken connection is noticed")
    assert dialer.aborted
    assert dialer.aborted.code is Code.DIALER_RESET
    assert (dialer.tunnel.untaken, dialer.tunnel.undelivered_bytes) == (False, 0)
    link.give(FrameType.ENDED, Ended(Code.DIALER_RESET, 0, 0).encode())
    dialer.join()


def test_nothing_is_left_when_a_tunnel_cannot_start_its_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    link = FakeLink()
    ours, user = tcp_pair()
    user.settimeout(HANG)
    tunnel = Tunnel(session_of(Role.DIALER), link, ours)

    def refuse(_self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(LocalResourceError, match="can't start new thread"):
            tunnel.run()
    with pytest.raises(ConnectionResetError):
        user.recv(1)
    user.close()
    assert link.released


def test_the_socket_error_that_the_kernel_reports_names_the_reason() -> None:
    link = FakeLink()
    relay = Running(session_of(Role.RELAY), link)
    reset(relay.user)
    relay.join()
    assert relay.aborted == Aborted(Code.TARGET_RESET, os.strerror(errno.ECONNRESET))
