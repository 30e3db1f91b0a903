"""The end of a shared session: what becomes of its connections, and who is told what."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable

import pytest

from emissary_lib.exceptions import LocalResourceError
from emissary_lib.protocol.codes import MEANINGS, Code
from emissary_lib.protocol.role import Role
from emissary_lib.protocol.session.events import Aborted, Finished
from emissary_lib.protocol.session.session import Outgoing
from emissary_lib.protocol.wire.frames import FrameType
from emissary_lib.protocol.wire.payloads import Connections, Ended, GoAway
from emissary_lib.tunnel.loopback import reset
from emissary_lib.tunnel.shared_relay import RequestedConnection
from tests.helpers.mux_pair import PREFACE, SETTINGS, answer, frame
from tests.helpers.patience import HANG, wait_until
from tests.helpers.shared_tunnels import PlayedRelay, SharedPair, fill_up, relay_alone
from tests.helpers.tunnels import FakeLink, read_to_end, send_all
from tests.unit.tunnel.test_shared_resets import read_to_a_reset


def refuse(pair: SharedPair) -> None:
    pair.bridge.refuse()
    pair.bridge.cut()


ENDS: dict[str, tuple[Callable[[SharedPair], None], Code, str]] = {
    "the dialer ends it": (
        lambda pair: pair.dialer.tunnel.abort(Code.KILLED, "enough"),
        Code.KILLED,
        "enough",
    ),
    "the relay ends it": (
        lambda pair: pair.relay.tunnel.abort(Code.MESSAGE_REFUSED, "too large"),
        Code.MESSAGE_REFUSED,
        "too large",
    ),
    "the link is refused": (refuse, Code.UNKNOWN_SESSION, "the test gives no second connection"),
    "the relay's time is up": (
        lambda pair: pair.let_time_pass(Role.RELAY, 10 * HANG),
        Code.RELAY_DEADLINE,
        MEANINGS[Code.RELAY_DEADLINE],
    ),
}


@pytest.mark.parametrize("how", ENDS)
def test_when_the_session_is_cut_off_each_connection_gets_its_error(how: str) -> None:
    cut, code, reason = ENDS[how]
    with SharedPair() as pair:
        quiet, talking, ended, full = (pair.connect(fill=number == 3) for number in range(4))
        requested, _ = pair.request()
        talking.user.sendall(b"query")
        assert talking.target.recv(10) == b"query"
        talking.target.sendall(b"rows")
        send_all(ended.user, b"goodbye")
        assert read_to_end(ended.target) == b"goodbye"
        wait_until(lambda: ended.dialed.idle, "its target has it")
        send_all(full.user, b"question")
        wait_until(lambda: full.dialed.untaken, "the relay has it, and its target has not")
        wait_until(lambda: talking.dialed.acked == 5, "the relay has it")
        wait_until(lambda: talking.dialed.received == 4, "the answer is here")
        reasons: list[str] = []
        for line in (quiet, talking, ended, full):
            line.dialed.watch_cut(lambda each=line.dialed: reasons.append(each.reason))  # type: ignore[misc]
        cut(pair)
        wait_until(lambda: pair.dialer.aborted, "the dialer knows")
        assert pair.dialer.aborted
        # Where the bridge's word is first, it tells the code alone.
        assert pair.dialer.aborted.reason in (reason, MEANINGS[code])
        reason = pair.dialer.aborted.reason
        assert [read_to_a_reset(line.user) for line in (quiet, talking, ended, full)] == [
            b"",
            b"rows",
            b"",
            b"",
        ]
        for line in (quiet, talking, ended, full):
            assert line.dialed.ended.wait(HANG)
            dialed = line.dialed
            assert (dialed.code, dialed.reason, dialed.lost, dialed.whole) == (code, reason, 0, False)
        for line in (quiet, talking):  # the others' have the end of the stream, or may have
            read_to_a_reset(line.target)
        full.target.close()
        for line in (quiet, talking, ended, full):
            assert line.requested.ended.wait(HANG)
        assert reasons == [reason] * 4, "told before the reset"
        assert [line.dialed.was_untaken for line in (quiet, talking, ended, full)] == [False] * 3 + [True]
        # Nobody may say in the meantime that there is nothing more to wait for: who was told says why.
        assert [line.dialed.idle for line in (quiet, talking, ended, full)] == [True] * 3 + [False]
        assert requested.answered.wait(HANG)
        assert (requested.opened, requested.code, requested.reason) == (False, code, reason)
        pair.dialer.join()
        pair.relay.join()
        assert pair.dialer.tunnel.open(quiet.dialed.target) is None


def test_a_connection_is_over_once_its_user_has_read_the_last_of_it() -> None:
    with PlayedRelay() as played:
        user, dialed = played.connect()
        user.shutdown(socket.SHUT_WR)
        written = 0

        def more_waits_than_the_kernel_takes() -> bool:
            nonlocal written
            if not played.mux.unsent(dialed.stream):
                written += played.mux.send_data(dialed.stream, bytes(4096))
            played.take()
            tunnel = played.side.tunnel
            return tunnel.ask(lambda now: tunnel._mux.buffered[1] > 0)

        wait_until(more_waits_than_the_kernel_takes, "bytes wait for the user")

        def stream_has_ended() -> bool:
            played.take()
            return played.mux.receive_ended(dialed.stream)

        wait_until(stream_has_ended, "its stream has ended")
        played.mux.send_eof(dialed.stream)
        played.mux.release_end(dialed.stream)
        played.take()
        wait_until(lambda: dialed.idle, "the relay has all of it")
        assert not dialed.over
        assert read_to_end(user) == bytes(written)
        assert dialed.ended.wait(HANG)


def test_a_connection_that_was_cut_off_before_keeps_its_own_reason() -> None:
    with SharedPair() as pair:
        dialed, requested = pair.request()
        near, target = pair.pair()
        requested.accept(near)
        target.sendall(b"x")
        wait_until(lambda: requested.sent, "the relay has read it")
        cut = threading.Event()
        dialed.watch_cut(cut.set)
        target.close()
        dialed_code = Code.TARGET_RESET
        pair.relay.tunnel.abort_connection(requested, dialed_code)
        assert cut.wait(HANG)
        pair.dialer.tunnel.abort(Code.KILLED, "enough")
        ours, user = pair.pair()
        dialed.attach(ours)
        read_to_a_reset(user)
        assert dialed.ended.wait(HANG)
        assert (dialed.code, dialed.reason) == (dialed_code, "")


def test_what_had_not_arrived_at_the_relay_is_lost_and_what_had_is_not() -> None:
    """Symptom: all that a program had ever written to a connection counted as lost with the session."""
    with PlayedRelay() as played:
        user, dialed = played.connect()
        before = played.came
        user.sendall(b"a" * 1000)
        wait_until(lambda: played.came >= before + 1000, "it comes")
        played.take()
        wait_until(lambda: dialed.acked == 1000, "it is acknowledged")
        between = played.came
        user.sendall(b"b" * 300)
        wait_until(lambda: played.came >= between + 300, "it comes")
        assert dialed.undelivered_bytes == 300
        played.side.tunnel.abort(Code.KILLED, "enough")
        read_to_a_reset(user)
        assert dialed.ended.wait(HANG)
        assert (dialed.lost, dialed.undelivered_bytes, dialed.was_untaken) == (300, 300, False)


def test_what_the_program_wrote_after_the_cut_is_lost_too() -> None:
    with SharedPair() as pair:
        dialed, requested = pair.request()
        near, target = pair.pair()
        requested.accept(near)
        assert dialed.answered.wait(HANG)
        ours, user = pair.pair()
        filled = fill_up(ours)
        dialed.attach(ours)
        target.sendall(b"rows")
        wait_until(lambda: pair.dialer_mux.buffered[1] == 4, "they wait for the program")
        cut = threading.Event()
        dialed.watch_cut(cut.set)
        pair.dialer.tunnel.abort(Code.KILLED, "enough")
        assert cut.wait(HANG)
        user.sendall(b"too late")
        wait_until(lambda: dialed.undelivered_bytes == 8, "nobody will read it")
        assert len(read_to_a_reset(user)) == filled + 4
        assert dialed.ended.wait(HANG)
        assert dialed.lost == 8


GARBAGE = {
    "no HTTP/2": b"SSH-2.0-OpenSSH_9.6\r\n",
    "an answer that nobody asked for": answer(99, b"200"),
    "GOAWAY": frame(7, payload=bytes(8)),
}


@pytest.mark.parametrize("garbage", GARBAGE)
def test_a_relay_that_breaks_a_rule_ends_the_session_and_every_socket_is_reset(garbage: str) -> None:
    with PlayedRelay() as played:
        user, dialed = played.connect()
        other, _ = played.connect()
        waiting = played.side.tunnel.open(dialed.target)
        assert waiting
        played.say(GARBAGE[garbage])
        assert read_to_a_reset(user) == read_to_a_reset(other) == b""
        assert dialed.ended.wait(HANG)
        assert dialed.code is Code.PROTOCOL_ERROR
        assert waiting.answered.wait(HANG)
        assert (waiting.opened, waiting.code, waiting.reason) == (False, dialed.code, dialed.reason)
        played.side.join()
        assert played.side.aborted == Aborted(Code.PROTOCOL_ERROR, dialed.reason)


def test_a_relay_that_ends_its_stream_over_an_open_connection_breaks_a_rule() -> None:
    with PlayedRelay() as played:
        user, dialed = played.connect()
        played.end_stream()
        read_to_a_reset(user)
        assert dialed.ended.wait(HANG)
        assert dialed.code is Code.PROTOCOL_ERROR
        assert "ends within a connection" in dialed.reason
        played.side.join()


def test_a_bridge_that_takes_a_session_with_open_connections_for_ended_has_it_cut_off() -> None:
    with PlayedRelay() as played:
        user, dialed = played.connect()
        ended = Ended(Code.OK, played.session.sent, played.session.received + 1)
        played.link.give(FrameType.ENDED, ended.encode())
        read_to_a_reset(user)
        assert dialed.ended.wait(HANG)
        assert (dialed.code, dialed.reason) == (Code.INCOMPLETE, MEANINGS[Code.INCOMPLETE])
        played.side.join()


def test_the_words_of_a_lost_program_have_arrived_where_the_bridge_says_that_all_has() -> None:
    with PlayedRelay() as played:
        user, dialed = played.connect()
        before = played.came
        user.sendall(b"last words")
        wait_until(lambda: dialed.sent == 10, "they are read")
        reset(user)
        wait_until(lambda: dialed.leaving and played.came > before + 10, "the reset follows them")
        played.side.tunnel.end()
        wait_until(lambda: played.session.send_ended, "the end of the stream")
        played.end_stream(ack=before)
        final = played.session.written + 1
        wait_until(lambda: played.session.received == played.written + 1, "the relay's end is there")
        played.link.give(FrameType.ENDED, Ended(Code.OK, final, played.written + 1).encode())
        assert dialed.ended.wait(HANG)
        assert dialed.lost == 0
        played.side.join()
        assert played.side.aborted is None


def test_a_dialer_that_breaks_a_rule_ends_the_session() -> None:
    link, requests = FakeLink(), list[RequestedConnection]()
    relay = relay_alone(link, requests.append)
    relay.thread.start()
    link.give(FrameType.DATA, PREFACE + frame(SETTINGS) + bytes(100))
    relay.join()
    assert relay.aborted
    assert relay.aborted.code is Code.PROTOCOL_ERROR
    assert requests == []


def test_at_the_relay_s_end_its_targets_are_let_go_of_though_the_bridge_confirms_nothing() -> None:
    """Symptom: they were given five seconds more, which the relay does not have."""
    with SharedPair() as pair:
        lines = [pair.connect(), pair.connect(fill=True)]
        lines[1].user.sendall(bytes(100_000))
        wait_until(lambda: lines[1].dialed.acked, "the relay has some of it")
        pair.bridge.confirms = False
        pair.let_time_pass(Role.RELAY, 10 * HANG)
        for line in lines:
            assert line.requested.ended.wait(HANG)
        assert pair.relay.thread.is_alive()


def test_the_dialer_ends_the_session_once_its_last_connection_is_over() -> None:
    with SharedPair() as pair:
        line = pair.connect()
        pair.dialer.tunnel.end()
        assert pair.dialer.tunnel.open(line.dialed.target) is None
        assert pair.dialer.tunnel.room == 0
        send_all(line.user, b"question")
        assert read_to_end(line.target) == b"question"
        send_all(line.target, b"answer")
        assert read_to_end(line.user) == b"answer"
        pair.dialer.join()
        pair.relay.join()
        assert [each for each in pair.dialer.events if isinstance(each, Finished)] == [Finished(Code.OK)]
        assert pair.relay.events[-1] == Finished(Code.OK)
        assert {end.code for _, end in pair.bridge.ends} == {Code.OK}


def test_the_end_waits_for_the_words_of_a_program_that_reset_its_socket() -> None:
    with SharedPair() as pair:
        line = pair.connect()
        line.user.sendall(b"last words")
        wait_until(lambda: line.dialed.sent == 10, "they are read")
        line.target.sendall(b"unread")
        wait_until(lambda: line.dialed.received == 6, "they are there")
        pair.dialer.tunnel.end()
        line.user.close()
        assert read_to_a_reset(line.target) == b"last words"
        pair.dialer.join()
        pair.relay.join()
        assert pair.dialer.aborted is pair.relay.aborted is None
        assert line.dialed.lost == 0


def test_the_bridge_is_told_of_the_connections_and_the_end_has_their_number() -> None:
    with SharedPair() as pair:
        first = pair.connect()
        dialed, requested = pair.request()
        requested.refuse(Code.TARGET_REFUSED)
        assert dialed.answered.wait(HANG)
        wait_until(lambda: pair.bridge.connections, "the bridge is told at once")
        assert pair.bridge.connections[0] == Connections(1, 1, 0)
        first.dialed.abort(Code.DIALER_RESET)
        assert first.requested.ended.wait(HANG)
        pair.let_time_pass(Role.RELAY, 10.0)
        wait_until(lambda: pair.bridge.connections[-1] == Connections(1, 0, 1), "and of the newest later")
        pair.relay.tunnel.abort(Code.KILLED, "enough")
        pair.relay.join()
        assert next(end.connections for role, end in pair.bridge.ends if role is Role.RELAY) == 1


def test_the_relay_s_goodbye_ends_the_session_when_no_connection_is_left() -> None:
    with PlayedRelay() as played:
        _user, dialed = played.connect()
        played.link.give(FrameType.GOAWAY, GoAway(Code.RELAY_DEADLINE, 30_000).encode())
        wait_until(lambda: played.side.tunnel.room == 0, "no more are asked for")
        assert played.side.tunnel.open(dialed.target) is None
        assert not dialed.over
        assert not played.session.send_ended
        dialed.abort(Code.DIALER_RESET)
        wait_until(lambda: played.session.send_ended, "its end")


def test_a_request_that_cannot_be_served_ends_the_session_and_the_bug_is_not_hidden() -> None:
    def broken(requested: RequestedConnection) -> None:
        raise ZeroDivisionError("a bug")

    reported: list[object] = []
    hook, threading.excepthook = threading.excepthook, reported.append
    try:
        with SharedPair(on_request=broken) as pair:
            dialed = pair.open()
            assert dialed
            assert dialed.answered.wait(HANG)
            assert not dialed.opened
            assert dialed.code
            pair.relay.join()
            assert pair.relay.aborted
            assert "ZeroDivisionError" in pair.relay.aborted.reason
    finally:
        threading.excepthook = hook
    assert reported


def test_a_driver_that_fails_resets_every_socket_and_nobody_waits_for_an_answer() -> None:
    class Broken(FakeLink):
        broken = False

        def send(self, message: Outgoing) -> None:
            if self.broken:
                raise ZeroDivisionError("a bug")
            super().send(message)

    reported: list[object] = []
    hook, threading.excepthook = threading.excepthook, reported.append
    try:
        with PlayedRelay(Broken()) as played:
            user, dialed = played.connect()
            other, _ = played.connect()
            waiting = played.side.tunnel.open(dialed.target)
            assert waiting
            Broken.broken = True
            user.sendall(b"x")
            read_to_a_reset(user)
            read_to_a_reset(other)
            assert waiting.answered.wait(HANG)
            assert dialed.ended.wait(HANG)
            assert (dialed.code, dialed.lost) == (Code.DIALER_GONE, 1)
            assert played.side.tunnel.open(dialed.target) is None, "nobody would answer"
            played.side.join()
            Broken.broken = False
    finally:
        threading.excepthook = hook
    assert reported
    assert played.link.released


def test_nothing_is_left_when_a_tunnel_cannot_start_its_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = SharedPair()
    dialed = pair.adopt()

    def refuse(_self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        for side in (pair.dialer, pair.relay):
            with pytest.raises(LocalResourceError, match="can't start new thread"):
                side.tunnel.start()
    assert dialed.answered.is_set()
    assert dialed.over
    ours, user = pair.pair()
    dialed.attach(ours)
    with pytest.raises(ConnectionResetError):
        user.recv(1)
    user.close()


# -- time ---------------------------------------------------------------------------------------


def test_a_session_without_a_connection_is_ended_after_a_while() -> None:
    with SharedPair(idle_seconds=60.0) as pair:
        pair.dialer.wait_until_it_rests()
        pair.let_time_pass(Role.DIALER, 59.0)
        pair.dialer.wait_until_it_rests()
        assert not pair.dialer_session.send_ended
        pair.let_time_pass(Role.DIALER, 60.0)
        pair.dialer.join()
        pair.relay.join()
        assert pair.dialer.aborted is pair.relay.aborted is None


def test_the_while_begins_when_the_last_connection_is_over() -> None:
    with SharedPair(idle_seconds=60.0) as pair:
        line = pair.connect()
        pair.let_time_pass(Role.DIALER, 120.0)
        pair.dialer.wait_until_it_rests()
        line.dialed.abort(Code.DIALER_RESET)
        assert line.dialed.ended.wait(HANG)
        pair.dialer.wait_until_it_rests()
        assert not pair.dialer_session.send_ended
        pair.let_time_pass(Role.DIALER, 61.0)
        pair.dialer.join()


@pytest.mark.parametrize("number", range(8))
def test_a_dial_at_the_moment_of_the_idle_session_s_end_works_or_finds_no_room(number: int) -> None:
    with SharedPair(idle_seconds=60.0, seed=number) as pair:
        pair.dialer.wait_until_it_rests()
        begin = threading.Barrier(2)

        def expire() -> None:
            begin.wait(HANG)
            pair.let_time_pass(Role.DIALER, 60.0)

        thread = threading.Thread(target=expire)
        thread.start()
        begin.wait(HANG)
        dialed = pair.open()
        thread.join(HANG)
        if dialed is None:
            pair.dialer.join()
            return
        near, _far = pair.pair()
        assert pair.requests.get(timeout=HANG).accept(near)
        assert dialed.answered.wait(HANG)
        assert dialed.opened


def test_a_relay_that_drains_takes_no_more_and_serves_those_it_has() -> None:
    with SharedPair(drain_at=time.monotonic() + 100.0) as pair:
        line = pair.connect()
        pair.relay.wait_until_it_rests()
        assert pair.dialer.tunnel.room > 0
        pair.let_time_pass(Role.RELAY, 101.0)
        wait_until(lambda: pair.dialer.tunnel.room == 0, "the dialer knows")
        assert pair.open() is None
        send_all(line.user, b"question")
        assert read_to_end(line.target) == b"question"
        line.target.shutdown(socket.SHUT_WR)
        pair.dialer.join()
        assert pair.dialer.aborted is None


def test_a_dead_reader_thread_s_error_is_every_connection_s() -> None:
    with SharedPair() as pair:
        line = pair.connect()
        pair.dialer.tunnel._end_refused(Code.PROTOCOL_ERROR, "a bug")
        read_to_a_reset(line.user)
        assert line.dialed.ended.wait(HANG)
        assert (line.dialed.code, line.dialed.reason) == (Code.PROTOCOL_ERROR, "a bug")
