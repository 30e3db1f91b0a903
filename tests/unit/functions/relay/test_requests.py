"""How a relay answers what a shared session asks for, and what it logs of that."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.targets.allow_list import Target
from emissary_lib.transport.deadline import Deadline
from emissary_lib.tunnel.loopback import tcp_pair
from functions.common import logs
from functions.relay import requests as module
from functions.relay.connector import Connected
from functions.relay.requests import Requests
from tests.helpers.patience import HANG, wait_until
from tests.helpers.shared_tunnels import TARGET, SharedPair
from tests.helpers.slow_log import slow_log
from tests.unit.functions.conftest import Figures

Connect = Callable[[Target, Deadline], Connected]


class Lines(logging.Handler):
    """What was logged, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def of(self, text: str) -> list[dict[str, object]]:
        return [vars(record) for record in self.records if record.getMessage() == text]


@pytest.fixture
def lines() -> Iterator[Lines]:
    logger, handler = logging.getLogger(logs.NAME), Lines()
    before = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(before)


@contextlib.contextmanager
def serving(connect: Connect) -> Iterator[tuple[SharedPair, Requests]]:
    requests = Requests("s-1", 7, connect, HANG)
    with SharedPair(on_request=requests.serve) as pair:
        yield pair, requests
    requests.join(HANG)


class SilentTarget:
    """One that never answers: whoever connects gives up at the deadline.

    Attributes:
        asked: Set once somebody connects.
        let_go: Set by the deadline's early end.
    """

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.let_go = threading.Event()

    def connect(self, target: Target, deadline: Deadline) -> Connected:
        self.asked.set()
        deadline.wait(self.let_go)
        return Connected(Code.TARGET_TIMED_OUT)


class Targets:
    """Targets that accept at once.

    Attributes:
        asked: What was connected to.
        ends: The targets' ends.
    """

    def __init__(self) -> None:
        self.asked: list[Target] = []
        self.ends: list[socket.socket] = []

    def connect(self, target: Target, deadline: Deadline) -> Connected:
        near, far = tcp_pair()
        self.asked.append(target)
        self.ends.append(far)
        return Connected(Code.OK, near, ("10.0.0.7", 5432))


@pytest.fixture
def targets() -> Iterator[Targets]:
    made = Targets()
    yield made
    for end in made.ends:
        end.close()


def test_a_connection_and_its_end_are_a_line_each(targets: Targets, lines: Lines) -> None:
    with serving(targets.connect) as (pair, _requests):
        dialed = pair.open(Target("db.internal", 5432))
        assert dialed
        assert dialed.answered.wait(HANG)
        assert dialed.opened
        assert targets.asked == [TARGET]
        ours, user = pair.pair()
        dialed.attach(ours)
        (target,) = targets.ends
        user.sendall(b"question")
        assert target.recv(8, socket.MSG_WAITALL) == b"question"
        target.sendall(b"row")
        assert user.recv(3, socket.MSG_WAITALL) == b"row"
        wait_until(lambda: lines.of("connected"), "it is logged")
        (line,) = lines.of("connected")
        facts = {name: line[name] for name in ("session", "key_id", "target", "code")}
        assert facts == {"session": "s-1", "key_id": 7, "target": "db.internal:5432", "code": "OK"}
        assert isinstance(line["duration_s"], float)
        assert not lines.of("connection ended")
        user.shutdown(socket.SHUT_WR)
        target.shutdown(socket.SHUT_WR)
        wait_until(lambda: lines.of("connection ended"), "and so is its end")
    (line,) = lines.of("connection ended")
    assert {name: line[name] for name in facts} == facts
    assert (line["dialer_bytes"], line["relay_bytes"]) == (8, 3)
    started, ended, duration = line["started"], line["ended"], line["duration_s"]
    assert isinstance(started, float)
    assert isinstance(ended, float)
    assert isinstance(duration, float)
    assert started <= ended
    assert not lines.of("not connected")


def test_a_connection_that_breaks_or_ends_with_its_session_has_the_code(
    targets: Targets, lines: Lines
) -> None:
    with serving(targets.connect) as (pair, _requests):
        dials = [pair.open(), pair.open()]
        for dialed in dials:
            assert dialed
            assert dialed.answered.wait(HANG)
        assert dials[1]
        dials[1].abort(Code.DIALER_RESET)
        wait_until(lambda: lines.of("connection ended"), "its end is logged")
        pair.relay.tunnel.abort(Code.KILLED, "enough")
        pair.relay.join()
    assert [line["code"] for line in lines.of("connection ended")] == ["DIALER_RESET", "KILLED"]


@pytest.mark.parametrize("code", [code for code in Code if 32 <= code < 38])
def test_a_target_that_is_not_reached_is_refused_with_the_outcome(code: Code, lines: Lines) -> None:
    with serving(lambda target, deadline: Connected(code)) as (pair, _requests):
        dialed = pair.open()
        assert dialed
        assert dialed.answered.wait(HANG)
        assert (dialed.opened, dialed.code) == (False, code)
    (line,) = lines.of("not connected")
    assert (line["code"], line["target"], line["key_id"]) == (code.name, "db.internal:5432", 7)
    assert not lines.of("connection ended")


def test_a_target_that_accepts_and_resets_at_once_is_opened_and_then_cut_off(lines: Lines) -> None:
    """Symptom: the answer's code was none for an answer, and the dialer waited for another in vain."""
    with serving(lambda target, deadline: Connected(Code.TARGET_RESET)) as (pair, _requests):
        dialed = pair.open()
        assert dialed
        assert dialed.answered.wait(HANG)
        ours, user = pair.pair()
        dialed.attach(ours)
        with pytest.raises(ConnectionResetError):
            user.recv(1)
        assert dialed.ended.wait(HANG)
        assert (dialed.opened, dialed.code) == (True, Code.TARGET_RESET)
        wait_until(lambda: lines.of("connection ended"), "its end is logged")
    assert [line["code"] for line in lines.of("connection ended")] == ["TARGET_RESET"]


def test_a_connector_that_fails_is_a_refusal_and_logged(lines: Lines) -> None:
    def broken(target: Target, deadline: Deadline) -> Connected:
        raise ZeroDivisionError("a bug")

    with serving(broken) as (pair, _requests):
        dialed = pair.open()
        assert dialed
        assert dialed.answered.wait(HANG)
        assert dialed.code is Code.TARGET_FAILED
    assert lines.of("connecting to the target failed")


@pytest.mark.parametrize("outcome", ["none", "a connection"])
def test_a_request_that_is_given_up_ends_its_attempt(outcome: str, lines: Lines) -> None:
    began, ended = threading.Event(), threading.Event()
    fars: list[socket.socket] = []

    def connect(target: Target, deadline: Deadline) -> Connected:
        began.set()
        deadline.wait(ended)  # which the deadline's early end sets
        assert deadline.passed()
        if outcome == "none":
            return Connected(Code.TARGET_TIMED_OUT)
        near, far = tcp_pair()
        fars.append(far)
        return Connected(Code.OK, near)

    with serving(connect) as (pair, requests):
        dialed = pair.open()
        assert dialed
        assert began.wait(HANG)
        dialed.abort(Code.DIALER_RESET)
        assert ended.wait(HANG)
        requests.join(HANG)
        for far in fars:
            far.settimeout(HANG)
            assert far.recv(1) == b""
            far.close()
    assert [line["code"] for line in lines.of("not connected")] == ["GIVEN_UP"]
    assert not lines.of("connected")


def test_the_session_s_end_ends_attempts_too() -> None:
    target = SilentTarget()
    with serving(target.connect) as (pair, _requests):
        assert pair.open()
        assert target.asked.wait(HANG)
        pair.relay.tunnel.abort(Code.KILLED, "enough")
        assert target.let_go.wait(HANG)


def test_beyond_so_many_attempts_requests_are_declined(monkeypatch: pytest.MonkeyPatch, lines: Lines) -> None:
    monkeypatch.setattr(module, "MAX_ATTEMPTS", 2)
    go_on = threading.Event()

    def connect(target: Target, deadline: Deadline) -> Connected:
        assert go_on.wait(HANG)  # a name server that does not hear of anybody's giving up
        return Connected(Code.NAME_NOT_FOUND)

    with serving(connect) as (pair, requests):
        held = [pair.open(), pair.open()]
        for dialed in held:
            assert dialed
            dialed.abort(Code.DIALER_RESET)
        further = pair.open()
        assert further
        assert further.answered.wait(HANG)
        assert further.declined
        assert not further.opened
        go_on.set()
        requests.join(HANG)
        later = pair.open()
        assert later
        assert later.answered.wait(HANG)
        assert later.code is Code.NAME_NOT_FOUND, "there is a place again"
    assert [line["code"] for line in lines.of("not connected")].count("DECLINED") == 1


def test_without_a_thread_for_it_a_request_is_declined(monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "emissary-connector":
            raise RuntimeError("can't start new thread")
        start(thread)

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with serving(lambda target, deadline: Connected(Code.TARGET_FAILED)) as (pair, _requests):
            dialed = pair.open()
            assert dialed
            assert dialed.answered.wait(HANG)
            assert dialed.declined


def test_whoever_joins_waits_for_attempts_but_not_without_end() -> None:
    go_on = threading.Event()

    def connect(target: Target, deadline: Deadline) -> Connected:
        assert go_on.wait(HANG)
        return Connected(Code.NAME_NOT_FOUND)

    with serving(connect) as (pair, requests):
        dialed = pair.open()
        wait_until(lambda: requests._attempts, "it is under way")
        requests.join(0.0)
        assert dialed
        assert not dialed.answered.is_set()
        go_on.set()
        requests.join(HANG)
        assert not requests._attempts


def test_who_logs_an_end_slowly_does_not_hold_up_the_neighbours(targets: Targets) -> None:
    with slow_log(logs.NAME, "connection ended") as log, serving(targets.connect) as (pair, _requests):
        users = []
        for number in range(2):
            dialed = pair.open()
            assert dialed
            assert dialed.answered.wait(HANG)
            ours, user = pair.pair()
            dialed.attach(ours)
            users.append(user)
            assert len(targets.ends) == number + 1
        users[0].shutdown(socket.SHUT_WR)
        targets.ends[0].shutdown(socket.SHUT_WR)
        assert log.blocked.wait(HANG)
        targets.ends[1].settimeout(HANG)
        for _ in range(10):
            targets.ends[1].sendall(b"row")
            assert users[1].recv(3, socket.MSG_WAITALL) == b"row"
            users[1].sendall(b"question")
            assert targets.ends[1].recv(8, socket.MSG_WAITALL) == b"question"
        log.go_on.set()


def test_every_end_is_logged_when_the_session_is_over(targets: Targets, lines: Lines) -> None:
    """Else an environment that Lambda freezes would keep it until it is gone."""
    with serving(targets.connect) as (pair, _requests):
        for dialed in [pair.open() for _ in range(5)]:
            assert dialed
            assert dialed.answered.wait(HANG)
        wait_until(lambda: len(lines.of("connected")) == 5, "each is watched")
        pair.relay.tunnel.abort(Code.KILLED, "enough")
        pair.relay.join()
        assert len(lines.of("connection ended")) == 5


# -- what CloudWatch is told ------------------------------------------------------------------


def test_a_connection_that_is_opened_is_one_line_with_the_time_that_its_target_took(
    targets: Targets, figures: Figures
) -> None:
    took: list[float] = []

    def connect(target: Target, deadline: Deadline) -> Connected:
        began = time.time()
        connected = targets.connect(target, deadline)
        took.append(time.time() - began)
        return connected

    with serving(connect) as (pair, _requests):
        began = time.time()
        dialed = pair.open()
        assert dialed
        wait_until(lambda: figures.lines, "it is told")
        most = time.time() - began
        ours, user = pair.pair()
        dialed.attach(ours)
        user.shutdown(socket.SHUT_WR)
        targets.ends[0].shutdown(socket.SHUT_WR)
        wait_until(lambda: not pair.relay.tunnel.connections, "it is over at the relay, too")
    (line,) = figures.lines
    assert set(line) == {"ConnectionOpened", "ConnectionMilliseconds"}
    assert line["ConnectionOpened"] == 1
    assert took[0] <= line["ConnectionMilliseconds"] / 1000 <= most


def test_a_connection_that_was_open_and_is_cut_off_has_failed(targets: Targets, figures: Figures) -> None:
    with serving(targets.connect) as (pair, _requests):
        for dialed in (pair.open(), pair.open(), pair.open()):
            assert dialed
            assert dialed.answered.wait(HANG)
        pair.relay.tunnel.abort(Code.KILLED, "enough")
        pair.relay.join()
    assert (figures.total("ConnectionOpened"), figures.total("ConnectionFailed")) == (3, 3)


def test_a_connection_that_is_not_opened_has_failed_and_has_no_time(figures: Figures) -> None:
    with serving(lambda target, deadline: Connected(Code.TARGET_REFUSED)) as (pair, requests):
        dialed = pair.open()
        assert dialed
        assert dialed.answered.wait(HANG)
        requests.join(HANG)
    assert figures.lines == [{"ConnectionFailed": 1}]


def test_a_dial_that_is_given_up_has_failed(figures: Figures) -> None:
    """Who loses patience before the relay does is the only one to tell of a slow target."""
    target = SilentTarget()
    with serving(target.connect) as (pair, requests):
        dialed = pair.open()
        assert dialed
        assert target.asked.wait(HANG)
        dialed.abort(Code.DIALER_RESET)
        assert target.let_go.wait(HANG)
        requests.join(HANG)
    assert figures.lines == [{"ConnectionFailed": 1}]


def test_a_request_that_is_declined_is_counted_where_it_is_made_next(figures: Figures) -> None:
    def connect(target: Target, deadline: Deadline) -> Connected:
        raise AssertionError("the relay has no place for it")

    with serving(connect) as (pair, requests):
        requests._attempts.update(threading.Thread() for _ in range(module.MAX_ATTEMPTS))
        dialed = pair.open()
        assert dialed
        assert dialed.answered.wait(HANG)
        assert dialed.declined
        requests._attempts.clear()
    assert figures.lines == []
