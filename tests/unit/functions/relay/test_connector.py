"""Connecting to the target: the allow-list before and after DNS, and a code for every failure."""

from __future__ import annotations

import json
import select
import socket
import threading
from collections.abc import Callable, Sequence

import pytest

from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.targets.allow_list import AllowList, Target
from emissary_lib.transport.deadline import AbortableDeadline, Deadline
from emissary_lib.tunnel.loopback import KERNEL_BUFFER, reset
from functions.relay.connector import Connected, connect_target
from tests.helpers.patience import HANG
from tests.helpers.servers import BlackHole

NAME = "db.internal"


def allow(*targets: tuple[str, int]) -> AllowList:
    return AllowList.parse(json.dumps([{"host": host, "port": port} for host, port in targets]))


def connect(target: tuple[str, int], allowed: AllowList, *addresses: str, timeout: float = 5.0) -> Connected:
    return connect_target(Target.parse(target), allowed, lambda host: addresses, Deadline(timeout))


def no_dns(host: str) -> Sequence[str]:
    raise AssertionError(f"{host} was resolved")


def test_unlisted_name_is_refused_before_dns() -> None:
    result = connect_target(Target.parse((NAME, 5432)), allow(("other", 5432)), no_dns, Deadline(5))
    assert (result.code, result.sock) == (Code.TARGET_NOT_ALLOWED, None)


def test_listed_name_at_a_dangerous_address_is_refused_after_dns() -> None:
    allowed = allow((NAME, 9001))
    assert connect((NAME, 9001), allowed, "127.0.0.1", "169.254.169.254").code is Code.TARGET_NOT_ALLOWED


def test_name_without_address_is_not_found() -> None:
    assert connect((NAME, 5432), allow((NAME, 5432))).code is Code.NAME_NOT_FOUND


def test_connection_goes_to_the_address_that_was_checked() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        result = connect((NAME, port), allow((NAME, port), ("127.0.0.1", port)), "127.0.0.1")
        assert result.sock is not None
        with result.sock:
            assert result.code is Code.OK
            assert result.bound == result.sock.getpeername() == ("127.0.0.1", port)
            assert result.sock.gettimeout() is None
            assert result.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):  # Linux doubles what it is asked for
                assert result.sock.getsockopt(socket.SOL_SOCKET, option) in (KERNEL_BUFFER, 2 * KERNEL_BUFFER)
            assert result.sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def test_address_is_known_even_if_the_target_resets_at_once() -> None:
    # Such a socket has no peer any more (ENOTCONN), and the relay used to fail without a word to the dialer.
    with socket.create_server(("127.0.0.1", 0)) as server:
        target = server.getsockname()
        result = connect(target, allow(target), "127.0.0.1")
        assert result.sock is not None
        with result.sock:
            reset(server.accept()[0])
            assert select.select([result.sock], [], [], 5.0)[0]
            assert result.bound == target


def test_second_address_is_tried_when_the_first_one_refuses() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        allowed = allow((NAME, port), ("127.0.0.1", port), ("127.0.0.2", port))
        result = connect((NAME, port), allowed, "127.0.0.2", "127.0.0.1")
        assert result.sock is not None
        result.sock.close()
        assert result.bound[0] == "127.0.0.1"


def test_addresses_that_are_not_allowed_are_passed_over() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        result = connect(
            (NAME, port), allow((NAME, port), ("127.0.0.1", port)), "169.254.169.254", "127.0.0.1"
        )
        assert result.sock is not None
        result.sock.close()
        assert result.bound[0] == "127.0.0.1"


def test_refused_connection_has_its_code() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        target = server.getsockname()
    result = connect(target, allow(target), "127.0.0.1")
    assert (result.code, result.sock, result.bound) == (Code.TARGET_REFUSED, None, ("0.0.0.0", 0))


def test_target_that_resets_before_the_connection_is_looked_at_has_reset_it() -> None:
    def connect(
        address: tuple[str, int], timeout: float | None, *, given_up: Callable[[], bool]
    ) -> socket.socket:
        raise ConnectionResetError(104, "Connection reset by peer")

    allowed = allow(("127.0.0.1", 5432))
    target = Target.parse(("127.0.0.1", 5432))
    result = connect_target(target, allowed, lambda host: ["127.0.0.1"], Deadline(5), connect)
    assert (result.code, result.sock) == (Code.TARGET_RESET, None)


def test_silent_target_times_out() -> None:
    with BlackHole() as target:
        assert connect(target, allow(target), "127.0.0.1", timeout=0.2).code is Code.TARGET_TIMED_OUT


def test_nothing_is_tried_after_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        target = server.getsockname()
        assert connect(target, allow(target), "127.0.0.1", timeout=0.0).code is Code.TARGET_TIMED_OUT
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_what_is_given_up_ends_the_attempt_and_no_other_address_is_tried() -> None:
    deadline, tried = AbortableDeadline(HANG), []

    def connect(
        address: tuple[str, int], timeout: float | None, *, given_up: Callable[[], bool]
    ) -> socket.socket:
        tried.append((address[0], timeout))
        assert not given_up()
        deadline.abort()
        assert given_up()
        raise TimeoutError("timed out")

    allowed = allow((NAME, 5432), ("127.0.0.1", 5432), ("127.0.0.2", 5432))
    addresses = ("127.0.0.1", "127.0.0.2")
    result = connect_target(Target.parse((NAME, 5432)), allowed, lambda host: addresses, deadline, connect)
    ((address, timeout),) = tried
    assert address == "127.0.0.1"
    assert timeout is not None
    assert 1.0 < timeout <= 4.0, "a look at whether it was given up must not cut the time short"
    assert result.sock is None


def test_silent_target_is_left_when_it_is_given_up() -> None:
    deadline, outcome = AbortableDeadline(None), list[Connected]()
    with BlackHole() as target:

        def run() -> None:
            outcome.append(
                connect_target(Target.parse(target), allow(target), lambda host: ["127.0.0.1"], deadline)
            )

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        deadline.abort()
        thread.join(HANG)
        assert [each.sock for each in outcome] == [None]


def test_missing_route_has_its_code() -> None:
    # TCP to a multicast address: the kernel itself answers ENETUNREACH, and no packet leaves the machine.
    target = ("224.0.0.1", 5432)
    assert connect(target, allow(target), "224.0.0.1").code is Code.TARGET_UNREACHABLE
