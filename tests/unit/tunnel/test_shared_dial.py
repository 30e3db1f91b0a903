"""How a connection of a shared session begins, or does not."""

from __future__ import annotations

import threading
import time

import pytest

from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.mux.answers import STATUSES
from emissary_lib.protocol.mux.limits import MAX_CONNECTIONS, MuxLimits
from emissary_lib.protocol.session.session import Outgoing
from emissary_lib.protocol.targets.allow_list import Target
from emissary_lib.transport.deadline import Deadline
from emissary_lib.tunnel.shared_relay import RequestedConnection
from tests.helpers.patience import HANG, wait_until
from tests.helpers.shared_tunnels import TARGET, PlayedRelay, SharedPair
from tests.helpers.tunnels import FakeLink


def test_the_relay_hears_the_target_and_the_dialer_the_answer() -> None:
    with SharedPair() as pair:
        dialed, requested = pair.request(Target("::1", 5433))
        assert requested.target == Target("::1", 5433)
        assert not dialed.answered.is_set()
        near, _far = pair.pair()
        assert requested.accept(near)
        assert dialed.answered.wait(HANG)
        assert dialed.opened
        assert not dialed.over


@pytest.mark.parametrize("code", [code for code in STATUSES if code])
def test_a_refusal_tells_its_code_and_is_the_connection_s_end(code: Code) -> None:
    with SharedPair() as pair:
        dialed, requested = pair.request()
        over = threading.Event()
        dialed.watch_over(over.set)
        assert requested.refuse(code)
        assert dialed.answered.wait(HANG)
        assert over.wait(HANG)
        assert (dialed.opened, dialed.declined, dialed.code, dialed.reason) == (False, False, code, "")
        assert requested.ended.wait(HANG)
        assert pair.dialer.tunnel.connections == 0
        assert pair.connect().dialed.opened, "and others may follow"


def test_a_declined_request_is_told_as_such() -> None:
    with SharedPair() as pair:
        dialed, requested = pair.request()
        requested.decline()
        assert dialed.answered.wait(HANG)
        assert (dialed.opened, dialed.declined, dialed.code) == (False, True, Code.OK)


def test_a_dial_that_is_given_up_is_told_to_the_relay_which_takes_no_answer_any_more() -> None:
    with SharedPair() as pair:
        dialed, requested = pair.request()
        given_up = threading.Event()
        requested.watch_cut(given_up.set)
        dialed.abort(Code.DIALER_RESET)
        assert dialed.ended.wait(HANG)
        assert (dialed.code, dialed.opened) == (Code.DIALER_RESET, False)
        assert given_up.wait(HANG)
        near, far = pair.pair()
        assert not requested.accept(near)
        assert far.recv(1) == b"", "and the socket is closed"
        assert not requested.refuse(Code.TARGET_REFUSED)
        requested.decline()
        assert (pair.relay_mux.opened, pair.relay_mux.refused) == (0, 0)


def test_a_connection_may_be_aborted_twice_and_after_its_end() -> None:
    with SharedPair() as pair:
        line = pair.connect()
        line.dialed.abort(Code.DIALER_RESET)
        line.dialed.abort(Code.KILLED)
        with pytest.raises(ConnectionResetError):
            line.user.recv(1)
        with pytest.raises(ConnectionResetError):
            line.target.recv(1)
        assert line.dialed.ended.wait(HANG)
        line.dialed.abort(Code.KILLED)
        assert line.dialed.code is Code.DIALER_RESET


def test_an_abort_tells_what_of_the_program_s_bytes_is_lost() -> None:
    with PlayedRelay() as played:
        user, dialed = played.connect()
        before = played.came
        user.sendall(bytes(5000))
        wait_until(lambda: played.came > before + 5000, "they are sent")
        dialed.abort(Code.DIALER_RESET)
        assert dialed.ended.wait(HANG)
        assert dialed.lost == dialed.undelivered_bytes == 5000


def test_a_socket_that_comes_after_the_end_is_reset() -> None:
    with SharedPair() as pair:
        dialed, _requested = pair.request()
        dialed.abort(Code.DIALER_RESET)
        ours, user = pair.pair()
        dialed.attach(ours)
        with pytest.raises(ConnectionResetError):
            user.recv(1)


def test_there_is_no_room_beyond_what_the_relay_allows() -> None:
    with SharedPair(relay=MuxLimits(connections=2)) as pair:
        wait_until(lambda: pair.dialer.tunnel.room == 2, "the relay's limit is known")
        line = pair.connect()
        pair.connect()
        assert pair.dialer.tunnel.room == 0
        assert pair.open() is None
        line.dialed.abort(Code.DIALER_RESET)
        wait_until(lambda: pair.dialer.tunnel.room == 1, "the place is free")


def test_what_was_asked_for_with_the_opening_is_answered() -> None:
    pair = SharedPair()
    dialed = pair.adopt()
    with pair:
        requested = pair.requests.get(timeout=HANG)
        near, _far = pair.pair()
        requested.accept(near)
        assert dialed.answered.wait(HANG)
        assert dialed.opened


def test_a_relay_whose_time_is_short_declines_what_came_with_the_opening() -> None:
    """Symptom: it took connections until something else woke it, though its end was announced."""
    pair = SharedPair(drain_at=time.monotonic())
    dialed = pair.adopt()
    with pair:
        assert dialed.answered.wait(HANG)
        assert dialed.declined
        pair.dialer.join()  # which is of no use to anybody
        assert pair.dialer.aborted is None


def test_as_many_as_there_may_be_are_dialled_at_once() -> None:
    taken: list[RequestedConnection] = []
    with SharedPair(on_request=taken.append) as pair:
        dials = [pair.open() for _ in range(MAX_CONNECTIONS)]
        assert pair.open() is None
        wait_until(lambda: len(taken) == MAX_CONNECTIONS, "all have come")
        threads = [threading.Thread(target=each.accept, args=(pair.pair()[0],)) for each in taken]
        for thread in threads:
            thread.start()
        for dial in dials:
            assert dial
            assert dial.answered.wait(HANG)
            assert dial.opened
        for thread in threads:
            thread.join(HANG)


# -- whose thread it is ---------------------------------------------------------------------------


class Witness(FakeLink):
    """A link that notes which threads send over it."""

    def __init__(self) -> None:
        super().__init__()
        self.senders: set[threading.Thread] = set()

    def send(self, message: Outgoing) -> None:
        self.senders.add(threading.current_thread())
        super().send(message)


def test_no_thread_of_a_program_s_does_the_session_s_work() -> None:
    """Symptom: a signal's handler that raised in a dial left others' bytes to be delivered twice."""
    link = Witness()
    with PlayedRelay(link) as played:
        _user, first = played.connect()
        _user, second = played.connect()
        before = played.came
        first.begin_drain()
        second.abort(Code.DIALER_RESET)
        played.side.tunnel.end()
        wait_until(lambda: played.came > before, "what was wanted goes out")
        assert second.ended.wait(HANG)
        assert link.senders
        assert threading.current_thread() not in link.senders


class Interrupted(Deadline):
    """A deadline of a thread that a signal's handler raises in."""

    def __init__(self) -> None:
        super().__init__(HANG)

    def wait(self, event: threading.Event) -> None:
        super().wait(event)
        raise KeyboardInterrupt


def test_a_dial_that_is_interrupted_while_it_asks_is_given_up() -> None:
    with SharedPair() as pair:
        with pytest.raises(KeyboardInterrupt):
            pair.dialer.tunnel.open(TARGET, Interrupted())
        requested = pair.requests.get(timeout=HANG)
        assert requested.ended.wait(HANG)
        assert pair.dialer.tunnel.connections == 0


def test_a_dial_whose_time_is_up_before_it_could_ask_is_no_connection() -> None:
    pair = SharedPair()
    with pytest.raises(TimeoutError):
        pair.dialer.tunnel.open(TARGET, Deadline(0.0))  # the driver has not begun
    with pair:
        assert pair.connect().dialed.opened
        wait_until(lambda: pair.dialer.tunnel.connections == 1, "the first is given up")


def test_a_finalizer_may_give_a_dial_up_in_a_thread_that_has_the_lock_and_after_the_end() -> None:
    with SharedPair() as pair:
        dialed = pair.open()
        assert dialed
        requested = pair.requests.get(timeout=HANG)
        with pair.dialer.tunnel._lock:
            dialed.abandon()
        assert requested.ended.wait(HANG)
        assert (dialed.code, requested.code) == (Code.DIALER_RESET, Code.DIALER_RESET)
        pair.dialer.tunnel.abort(Code.KILLED, "enough")
        pair.dialer.join()
        with pair.dialer.tunnel._lock:
            dialed.abandon()
