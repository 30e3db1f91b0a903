"""A transport over the newest of several connections (docs/protocol.md section 5.2)."""

from __future__ import annotations

import threading

import pytest

from emissary_lib.exceptions import (
    GatewayRefusedError,
    GatewayUnreachableError,
    LinkClosedError,
    LinkRefusedError,
    TransportError,
)
from emissary_lib.protocol.codes import Code
from emissary_lib.transport.base import MessageTransport
from emissary_lib.transport.deadline import Deadline
from emissary_lib.transport.reconnecting import ReconnectingTransport
from tests.helpers.memory_transport import MemoryTransport, linked_pair
from tests.helpers.patience import HANG


class Recorded:
    """One end of a pair in memory; remembers how it ended."""

    def __init__(self) -> None:
        self._near, self.far = linked_pair()
        self.ends: list[str] = []

    def send(self, message: bytes, timeout: float | None = None) -> None:
        self._near.send(message, timeout)

    def recv(self, timeout: float | None) -> bytes:
        return self._near.recv(timeout)

    def close(self) -> None:
        self.ends.append("close")
        self._near.close()

    def abort(self) -> None:
        self.ends.append("abort")
        self._near.abort()

    def release(self) -> None:
        self.ends.append("release")


class Connector:
    """Opens the next connection, or refuses to."""

    def __init__(self, *outcomes: Exception) -> None:
        self.outcomes = list(outcomes)
        self.opened: list[Recorded] = []
        self.asked: list[tuple[int, Deadline]] = []

    def __call__(self, epoch: int, deadline: Deadline) -> MessageTransport:
        self.asked.append((epoch, deadline))
        if self.outcomes:
            raise self.outcomes.pop(0)
        self.opened.append(Recorded())
        return self.opened[-1]


def far_of(recorded: Recorded) -> MemoryTransport:
    return recorded.far


def test_messages_go_over_the_newest_connection_and_the_old_one_is_given_back() -> None:
    first, connector = Recorded(), Connector()
    transport = ReconnectingTransport(first, connector)
    transport.send(b"one")
    assert far_of(first).recv(HANG) == b"one"
    transport.reconnect(7, Deadline(HANG))
    ((epoch, allowed),) = connector.asked
    assert epoch == 7
    assert allowed.timeout is not None
    assert 0 < allowed.timeout <= HANG
    assert first.ends == ["abort", "release"]
    (second,) = connector.opened
    transport.send(b"two")
    assert far_of(second).recv(HANG) == b"two"
    far_of(second).send(b"answer")
    assert transport.recv(HANG) == b"answer"
    assert second.ends == []


@pytest.mark.parametrize(
    ("status", "code", "certain"),
    [
        (400, Code.UNKNOWN_SESSION, True),
        (401, Code.AUTHENTICATION_FAILED, True),
        (403, Code.AUTHENTICATION_FAILED, False),  # the gateway has one of its own
        (404, Code.UNKNOWN_SESSION, True),
        (409, Code.UNKNOWN_SESSION, True),
        (410, Code.UNKNOWN_SESSION, True),
    ],
)
def test_a_refusal_is_named_as_such_and_whether_it_is_certain(status: int, code: Code, certain: bool) -> None:
    first = Recorded()
    connector = Connector(GatewayRefusedError(f"HTTP status {status}", http_status=status))
    with pytest.raises(LinkRefusedError, match=f"the session is over: HTTP status {status}") as caught:
        ReconnectingTransport(first, connector).reconnect(2, Deadline(HANG))
    assert (caught.value.code, caught.value.certain) == (code, certain)
    assert first.ends == []


def test_what_is_wrong_with_our_credentials_is_passed_on() -> None:
    known = LinkRefusedError("the clock is wrong", code=Code.AUTHENTICATION_FAILED)
    with pytest.raises(LinkRefusedError) as caught:
        ReconnectingTransport(Recorded(), Connector(known)).reconnect(2, Deadline(HANG))
    assert caught.value is known


@pytest.mark.parametrize(
    "failure",
    [
        GatewayRefusedError("throttled", http_status=429),
        GatewayRefusedError("broken", http_status=500),
        GatewayRefusedError("busy", http_status=503),
        GatewayUnreachableError("no answer"),
        TimeoutError("late"),
    ],
    ids=lambda failure: str(failure),
)
def test_a_failure_that_may_pass_is_raised_as_itself_and_may_be_tried_again(failure: Exception) -> None:
    connector = Connector(failure)
    transport = ReconnectingTransport(Recorded(), connector)
    with pytest.raises(type(failure)) as caught:
        transport.reconnect(2, Deadline(HANG))
    assert caught.value is failure
    assert not isinstance(failure, LinkRefusedError)
    transport.reconnect(3, Deadline(HANG))
    assert [epoch for epoch, _deadline in connector.asked] == [2, 3]


def test_a_transport_that_was_closed_during_the_attempt_stays_closed() -> None:
    first = Recorded()
    opened: list[Recorded] = []

    def closing(_epoch: int, _deadline: Deadline) -> MessageTransport:
        transport.close()
        opened.append(Recorded())
        return opened[0]

    transport = ReconnectingTransport(first, closing)
    transport.reconnect(2, Deadline(HANG))
    assert opened[0].ends == ["close"]
    with pytest.raises(LinkClosedError):
        transport.recv(HANG)
    with pytest.raises(TransportError):
        transport.send(b"late")


def test_closing_ends_an_attempt_that_is_under_way() -> None:
    under_way = threading.Event()

    def slow(_epoch: int, deadline: Deadline) -> MessageTransport:
        under_way.set()
        deadline.wait(threading.Event())
        raise TimeoutError("the deadline passed")

    transport = ReconnectingTransport(Recorded(), slow)
    outcomes: list[Exception] = []

    def attempt() -> None:
        try:
            transport.reconnect(2, Deadline(10 * HANG))
        except Exception as exc:
            outcomes.append(exc)

    thread = threading.Thread(target=attempt)
    thread.start()
    assert under_way.wait(HANG)
    transport.close()
    thread.join(HANG)
    assert not thread.is_alive()
    assert [type(outcome) for outcome in outcomes] == [TimeoutError]


def test_no_attempt_begins_after_closing() -> None:
    connector = Connector()
    transport = ReconnectingTransport(Recorded(), connector)
    transport.close()
    with pytest.raises(LinkClosedError):
        transport.reconnect(2, Deadline(HANG))
    assert connector.asked == []


def test_dropping_and_giving_back_are_for_the_newest() -> None:
    first, connector = Recorded(), Connector()
    transport = ReconnectingTransport(first, connector)
    transport.reconnect(2, Deadline(HANG))
    transport.abort()
    transport.release()
    assert connector.opened[0].ends == ["abort", "release"]
