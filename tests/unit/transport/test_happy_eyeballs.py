"""Whichever address answers first is connected to; one that swallows what is sent holds nobody up."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from emissary_lib.transport import happy_eyeballs
from emissary_lib.transport.happy_eyeballs import Found
from tests.helpers.patience import HANG
from tests.helpers.servers import BlackHole, Server, unused_port

NAME = ("gateway.example", 443)


def at(address: tuple[str, int], family: int = socket.AF_INET) -> Found:
    return family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", address


def named(*found: Found) -> Callable[..., list[Found]]:
    def resolve(host: str, port: int, *, type: int) -> list[Found]:
        assert (host, port, type) == (*NAME, socket.SOCK_STREAM)
        return list(found)

    return resolve


@pytest.fixture
def server() -> Iterator[tuple[str, int]]:
    with Server(lambda sock: None) as address:
        yield address


@pytest.fixture
def swallowing() -> Iterator[tuple[str, int]]:
    with BlackHole() as address:
        yield address


@pytest.fixture
def closed() -> Iterator[tuple[str, int]]:
    with unused_port() as address:
        yield address


def test_an_address_that_swallows_costs_the_stagger_and_not_the_timeout(
    server: tuple[str, int], swallowing: tuple[str, int]
) -> None:
    began = time.monotonic()
    with happy_eyeballs.connect(
        NAME, HANG, resolve=named(at(swallowing), at(swallowing), at(server))
    ) as sock:
        assert sock.getpeername() == server
        assert sock.gettimeout() == HANG
    assert time.monotonic() - began >= 2 * happy_eyeballs.CONNECTION_ATTEMPT_DELAY


def test_an_address_that_refuses_costs_no_stagger(
    server: tuple[str, int], closed: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(happy_eyeballs, "CONNECTION_ATTEMPT_DELAY", 10 * HANG)
    with happy_eyeballs.connect(NAME, HANG, resolve=named(*[at(closed)] * 8, at(server))) as sock:
        assert sock.getpeername() == server


def test_when_none_answers_the_time_is_kept(swallowing: tuple[str, int]) -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        happy_eyeballs.connect(NAME, 0.4, resolve=named(at(swallowing), at(swallowing)))
    assert 0.4 <= time.monotonic() - began < HANG


def test_whoever_gives_it_up_does_not_wait_for_an_address_that_swallows(swallowing: tuple[str, int]) -> None:
    with pytest.raises(TimeoutError):
        happy_eyeballs.connect(NAME, None, resolve=named(at(swallowing)), given_up=lambda: True)


def test_when_all_refuse_the_last_refusal_is_told(closed: tuple[str, int]) -> None:
    with pytest.raises(ConnectionRefusedError) as caught:
        happy_eyeballs.connect(NAME, HANG, resolve=named(at(closed), at(closed)))
    assert caught.value.errno == errno.ECONNREFUSED
    assert caught.value.strerror


def test_a_family_that_the_system_does_not_have_is_passed_over(server: tuple[str, int]) -> None:
    unknown = at(("::1", 1), family=12345)
    with happy_eyeballs.connect(NAME, HANG, resolve=named(unknown, at(server))) as sock:
        assert sock.getpeername() == server


def test_a_name_without_addresses_is_an_error() -> None:
    with pytest.raises(OSError, match="no address"):
        happy_eyeballs.connect(NAME, HANG, resolve=named())


def test_the_families_take_turns_beginning_with_the_systems_choice() -> None:
    four = [at((f"127.0.0.{n}", 1)) for n in (1, 2, 3)]
    six = [at((f"::{n}", 1), socket.AF_INET6) for n in (1, 2)]
    assert happy_eyeballs.interleave_families([*four, *six]) == [four[0], six[0], four[1], six[1], four[2]]
    assert happy_eyeballs.interleave_families([*six, *four])[0] == six[0]


def test_options_are_set_before_the_connection_is_made(server: tuple[str, int]) -> None:
    option = (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    with happy_eyeballs.connect(NAME, HANG, options=[option], resolve=named(at(server))) as sock:
        assert sock.getsockopt(*option[:2]) == 1
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 0


@pytest.mark.parametrize("timeout", [None, HANG])
def test_an_address_that_fails_at_once_is_not_waited_for(timeout: float | None) -> None:
    """A network that cannot be reached took the whole timeout, and for ever without one."""
    began = time.monotonic()
    with pytest.raises(OSError, match="Errno") as caught:
        happy_eyeballs.connect(NAME, timeout, resolve=named(at(("255.255.255.255", 1))))
    assert not isinstance(caught.value, TimeoutError)
    assert time.monotonic() - began < HANG
