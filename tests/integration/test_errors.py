"""Every way a dial or a tunnel can fail, on the real path: its own error, naming cause and remedy."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from emissary_lib import AuthenticationError, ConfigError, Dialer, DialTimeoutError, Key
from emissary_lib.exceptions import (
    ClockSkewError,
    ClosedError,
    GatewayRefusedError,
    GatewayUnreachableError,
    NameNotFoundError,
    TargetNotAllowedError,
    TargetRefusedError,
    TargetTimedOutError,
    TargetUnreachableError,
)
from emissary_lib.protocol.auth.httpdate import http_date
from emissary_lib.protocol.auth.keys import format_keys
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.wire.base64 import encode_unpadded
from emissary_lib.protocol.wire.frames import FrameType
from emissary_local import LocalCloud
from tests.helpers.kinds import Kind
from tests.helpers.local_cloud import (
    DIAL,
    LINUX_ONLY,
    TEMPLATE,
    audit_record,
    dialer_of,
    json_lines,
    log_lines,
    only_connection_ended,
    relay_returned,
)
from tests.helpers.patience import HANG
from tests.helpers.raw_dialer import RawDialer
from tests.helpers.servers import BlackHole, Server, echo, sink, unused_port
from tests.helpers.socks_client import SUCCEEDED, ask, read_exactly

pytestmark = LINUX_ONLY


def session_of(cloud: LocalCloud, target: tuple[str, int]) -> str:
    """The session in which this target was launched: a failed dial tells its caller no session id."""
    name = f"{target[0]}:{target[1]}"
    lines = json_lines(cloud, "DefaultFunction")
    sessions = {line["session"] for line in lines if line.get("target") == name}
    assert len(sessions) == 1
    return str(sessions.pop())


# -- $connect ---------------------------------------------------------------------------------


def test_wrong_secret_is_an_authentication_error(cloud: LocalCloud) -> None:
    with Dialer(cloud.url, Key(cloud.key.key_id, bytes(32))) as dialer:
        with pytest.raises(AuthenticationError, match="EMISSARY_AUTH_KEYS") as caught:
            dialer.dial(("127.0.0.1", 5432), DIAL)
    assert isinstance(caught.value, PermissionError)
    assert not isinstance(caught.value, ClockSkewError)


def test_unknown_key_id_is_an_authentication_error_and_looks_the_same(cloud: LocalCloud) -> None:
    with Dialer(cloud.url, Key(77, cloud.key.secret)) as dialer:
        with pytest.raises(AuthenticationError, match="key id 77"):
            dialer.dial(("127.0.0.1", 5432), DIAL)


@pytest.mark.parametrize("minutes", [-20, 20])
def test_date_twenty_minutes_off_does_not_pass_the_door(cloud: LocalCloud, minutes: int) -> None:
    with pytest.raises(GatewayRefusedError) as caught:
        RawDialer(cloud.url, cloud.key, unix_now=time.time() + 60 * minutes)
    assert caught.value.http_status == 403
    assert caught.value.date is not None  # with which a dialer finds out that its clock is the cause


def test_date_ten_minutes_off_passes_the_door(cloud: LocalCloud) -> None:
    with RawDialer(cloud.url, cloud.key, unix_now=time.time() - 600):
        pass


@pytest.mark.parametrize(("ahead", "says"), [(1200, "ahead"), (-1200, "behind")])
def test_refusal_with_another_time_is_told_as_a_wrong_clock(ahead: int, says: str) -> None:
    def refuse(connection: socket.socket) -> None:
        connection.recv(65_536)
        head = (
            f"HTTP/1.1 403 Forbidden\r\nDate: {http_date(time.time() - ahead)}\r\nContent-Length: 0\r\n\r\n"
        )
        connection.sendall(head.encode())
        sink(connection)

    with Server(refuse) as (host, port), Dialer(f"ws://{host}:{port}/emissary", Key(1, bytes(32))) as dialer:
        with pytest.raises(ClockSkewError, match=says):
            dialer.dial(("127.0.0.1", 5432), HANG)


def test_wrong_stage_is_refused_and_named_as_a_possible_cause(cloud: LocalCloud) -> None:
    with Dialer(cloud.url + "x", cloud.key) as dialer:
        with pytest.raises(AuthenticationError, match="stage"):
            dialer.dial(("127.0.0.1", 5432), DIAL)


def test_gateway_that_is_not_there_is_unreachable_at_once() -> None:
    with unused_port() as (host, port), Dialer(f"ws://{host}:{port}/emissary", Key(1, bytes(32))) as dialer:
        with pytest.raises(GatewayUnreachableError, match="check the URL"):
            dialer.dial(("127.0.0.1", 5432), DIAL)


def test_gateway_that_does_not_answer_ends_with_the_dials_own_timeout() -> None:
    with Server(sink) as (host, port), Dialer(f"ws://{host}:{port}/emissary", Key(1, bytes(32))) as dialer:
        with pytest.raises(DialTimeoutError, match="gateway's answer"):
            dialer.dial(("127.0.0.1", 5432), 1.0)


# -- the target -------------------------------------------------------------------------------


def test_target_off_the_list_is_refused_without_a_relay(cloud: LocalCloud, own_dialer: Dialer) -> None:
    with pytest.raises(TargetNotAllowedError, match="AllowedTargets") as caught:
        own_dialer.dial("db.internal:5432", DIAL)
    assert isinstance(caught.value, PermissionError)
    assert caught.value.code is Code.TARGET_NOT_ALLOWED
    assert "db.internal" not in cloud.logs("RelayFunction")


@pytest.mark.parametrize("target", ["169.254.169.254:80", "127.0.0.2:5432", "[::ffff:169.254.169.254]:80"])
def test_dangerous_address_is_refused(either_dialer: Dialer, target: str) -> None:
    with pytest.raises(TargetNotAllowedError):
        either_dialer.dial(target, DIAL)


def test_name_that_does_not_resolve_is_told_as_such(either_dialer: Dialer) -> None:
    with pytest.raises(NameNotFoundError, match=r"no-such-name\.invalid.*DNS"):
        either_dialer.dial("no-such-name.invalid:5432", DIAL)


def test_refused_connection_is_told_recorded_and_ends_the_session(
    cloud: LocalCloud, own_dialer: Dialer
) -> None:
    with unused_port() as target:
        with pytest.raises(TargetRefusedError, match="check that the service runs") as caught:
            own_dialer.dial(target, DIAL)
        assert isinstance(caught.value, ConnectionRefusedError)
        session = session_of(cloud, target)
        assert audit_record(cloud, session)["code"] == "TARGET_REFUSED"
        relay_returned(cloud, session)


def test_silent_target_is_told_once_the_relay_has_waited_for_it(
    cloud: LocalCloud, own_dialer: Dialer
) -> None:
    with BlackHole() as target:
        with pytest.raises(TargetTimedOutError, match="security groups") as caught:
            own_dialer.dial(target, DIAL)
        assert isinstance(caught.value, TimeoutError)
        session = session_of(cloud, target)
        assert audit_record(cloud, session)["code"] == "TARGET_TIMED_OUT"
        relay_returned(cloud, session)


@pytest.mark.slow
def test_missing_route_is_told_as_such() -> None:
    # TCP to a multicast address: the kernel itself answers, and no packet leaves the machine.
    with LocalCloud(TEMPLATE, targets=[("224.0.0.1", 5432)]) as cloud:
        with dialer_of(cloud) as dialer, pytest.raises(TargetUnreachableError, match="route"):
            dialer.dial("224.0.0.1:5432", DIAL)


# -- the user's own mistakes ------------------------------------------------------------------


@pytest.mark.parametrize("target", ["", "db", "db:", "db:0", "db:65536", "db:x", ":5432", ("db", 70_000)])
def test_what_is_no_target_is_a_config_error(dialer: Dialer, target: str | tuple[str, int]) -> None:
    with pytest.raises(ConfigError):
        dialer.dial(target)


def test_socks_client_reaches_targets_and_is_told_of_those_that_it_does_not(either_dialer: Dialer) -> None:
    replies = {}
    with Server(echo) as (host, port), unused_port() as unused, either_dialer.socks(timeout=DIAL) as address:
        for target in (
            f"{host}:{port}",
            f"127.0.0.1:{unused[1]}",
            "10.1.2.3:5432",
            "no-such-name.invalid:5432",
        ):
            sock, reply = ask(address, target)
            with sock:
                replies[target] = reply[1]
                if reply == SUCCEEDED:
                    sock.sendall(b"over there")
                    assert read_exactly(sock, 10) == b"over there"
    # RFC 1928 section 6: succeeded, refused, not allowed, host unreachable.
    assert list(replies.values()) == [0, 5, 2, 4]


def test_closed_dialer_says_so(cloud: LocalCloud) -> None:
    dialer = Dialer(cloud.url, cloud.key)
    dialer.close()
    with pytest.raises(ClosedError):
        dialer.dial("db.internal:5432")


# -- open tunnels -----------------------------------------------------------------------------


def test_reset_of_the_users_socket_resets_the_target(
    cloud: LocalCloud, either_dialer: Dialer, kind: Kind
) -> None:
    was_reset = threading.Event()

    def wait_for_the_end(connection: socket.socket) -> None:
        try:
            sink(connection)
        except ConnectionResetError:
            was_reset.set()

    with Server(wait_for_the_end) as target:
        sock = either_dialer.dial(target, DIAL)
        session = sock.session
        assert session is not None
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        sock.close()
        assert was_reset.wait(HANG)
        assert only_connection_ended(cloud, session.id) == "DIALER_RESET"
        assert audit_record(cloud, session.id)["code"] == ("OK" if kind.shared else "DIALER_RESET")


# -- what must never be seen ------------------------------------------------------------------


def test_no_secret_is_in_any_log(cloud: LocalCloud, either_dialer: Dialer) -> None:
    with RawDialer(cloud.url, cloud.key) as raw, Server(echo) as target:
        opening = raw.opening(target)
        raw.send(FrameType.OPENING, opening)
        parameters, _data = raw.opened()
        raw.end()
        relay_returned(cloud, raw.session)
        with either_dialer.dial(target, DIAL) as sock:
            sock.settimeout(HANG)
            sock.sendall(b"payload-nobody-may-log")
            sock.recv(100)
            info = sock.session
            assert info is not None
        relay_returned(cloud, info.id)
    logs = cloud.logs()
    assert raw.session in logs
    secrets = {
        "key": cloud.key.secret,
        "resume token": parameters.resume_token,
        "nonce": raw.nonce,
        "payload": b"payload-nobody-may-log",
    }
    for name, secret in secrets.items():
        for shown in (secret.hex(), encode_unpadded(secret), repr(secret)[2:-1]):
            assert shown not in logs, name
    assert format_keys([cloud.key]) not in logs
    # The password of the SOCKS5 exchange: the MAC over the nonce, in the clear on the wire.
    username_end = 3 + 2 + opening[4]
    password = opening[username_end + 1 : username_end + 1 + opening[username_end]].decode()
    assert len(password) > 40
    assert password not in logs
    assert "_token" not in "".join(str(line) for line in log_lines(cloud, raw.session))
