"""What ``dial`` returns is a socket: everything that takes one takes it."""

from __future__ import annotations

import gc
import select
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from emissary_lib.client.socket import TunnelSocket
from emissary_lib.exceptions import RelayDeadlineError, TunnelResetError
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.wire.frames import FrameType
from emissary_lib.protocol.wire.payloads import GoAway
from emissary_lib.tunnel.loopback import reset, tcp_pair
from emissary_local.net.certificates import create_certificates
from tests.helpers.bridge import KEY, TARGET, Behaviour, Bridge, Relay, echo
from tests.helpers.kinds import Kind
from tests.helpers.patience import HANG, read_until_it_raises, repeat_until_it_raises, wait_until
from tests.helpers.tunnels import read_to_end
from tests.helpers.ws_server import noise


@pytest.fixture
def bridge() -> Iterator[Bridge]:
    with Bridge() as bridge:
        yield bridge


@pytest.fixture
def sock(bridge: Bridge, kind: Kind) -> Iterator[TunnelSocket]:
    with kind.dialer(bridge.url, KEY).dial(TARGET, HANG) as sock:
        sock.settimeout(HANG)
        yield sock


def test_it_is_a_connected_blocking_tcp_socket(bridge: Bridge, kind: Kind) -> None:
    with kind.dialer(bridge.url, KEY).dial(TARGET) as sock:
        assert isinstance(sock, socket.socket)
        assert sock.gettimeout() is None
        assert sock.getpeername()[0] == "127.0.0.1"
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
        assert sock.session is not None
        assert sock.session.target.port == 5432
        assert len(sock.session.id) == 64
        assert sock.session.error is None


def test_the_announced_end_is_a_warning_and_stands_in_the_session(
    sock: TunnelSocket, bridge: Bridge, caplog: pytest.LogCaptureFixture
) -> None:
    info = sock.session
    assert info is not None
    before, began = info.going_away, time.time()
    bridge.relay().control(FrameType.GOAWAY, GoAway(Code.RELAY_DEADLINE, 30_000).encode())
    told(bridge, sock)
    assert (before, info.going_away) == (False, True)
    assert began + 29 < info.expires_at < time.time() + 31
    wait_until(lambda: caplog.records, "the warning")
    (warning,) = caplog.records
    assert (warning.name, warning.levelname) == ("emissary_lib.tunnel", "WARNING")
    assert "the tunnel to db.internal:5432 ends in 30 s" in warning.getMessage()
    assert "dial again" in warning.getMessage()


def test_the_end_is_announced_once_for_each_time_that_is_left(
    sock: TunnelSocket, bridge: Bridge, caplog: pytest.LogCaptureFixture
) -> None:
    began = time.time()
    for remaining in (30_000, 30_000, 10_000, 30_000, 10_000):  # copies, and one that was overtaken
        bridge.relay().control(FrameType.GOAWAY, GoAway(Code.RELAY_DEADLINE, remaining).encode())
    told(bridge, sock)

    def warned() -> list[str]:
        return [record.getMessage().split(" in ")[1][:4] for record in caplog.records]

    wait_until(lambda: len(warned()) >= 2, "the warnings")
    assert warned() == ["30 s", "10 s"]
    assert sock.session is not None
    assert began + 9 < sock.session.expires_at < time.time() + 11


def test_an_end_that_is_announced_before_the_dial_is_over_is_not_lost(kind: Kind) -> None:
    def announce(relay: Relay) -> None:
        relay.control(FrameType.GOAWAY, GoAway(Code.RELAY_DEADLINE, 10_000).encode())

    began = time.time()
    with (
        Bridge(Behaviour(script=announce)) as bridge,
        kind.dialer(bridge.url, KEY).dial(TARGET, HANG) as sock,
    ):
        assert sock.session is not None
        assert sock.session.going_away
        assert began + 9 < sock.session.expires_at < time.time() + 11


def told(bridge: Bridge, sock: TunnelSocket) -> None:
    """Wait until all that the bridge has said so far was heard; one connection keeps the order."""
    bridge.relay().write(b".")
    assert sock.recv(1) == b"."


def test_a_half_close_is_kept_and_a_megabyte_comes_back(sock: TunnelSocket, bridge: Bridge) -> None:
    data = noise(1 << 20)
    sock.sendall(b"give me a megabyte")
    sock.shutdown(socket.SHUT_WR)
    relay = bridge.relay()
    assert relay.read_to_end() == b"give me a megabyte"
    relay.write(data)
    relay.write_eof()
    assert read_to_end(sock) == data
    assert sock.session is not None
    assert sock.session.error is None


def test_the_targets_end_of_stream_leaves_our_direction_open(sock: TunnelSocket, bridge: Bridge) -> None:
    relay = bridge.relay()
    relay.write(b"bye")
    relay.write_eof()
    assert read_to_end(sock) == b"bye"
    sock.sendall(b"still talking")
    assert relay.read(13) == b"still talking"


def use(sock: TunnelSocket, how: str) -> None:
    if how == "recv":
        sock.recv(1)
    elif how == "recv_into":
        sock.recv_into(bytearray(1))
    elif how == "makefile":
        with sock.makefile("rb") as file:
            file.read(1)
    elif how == "sendmsg":
        sock.sendmsg([b"x" * 1000])
    elif how == "send":
        sock.send(b"x" * 1000)
    else:
        sock.sendall(b"x" * 1000)


@pytest.mark.parametrize("how", ["recv", "recv_into"])
def test_a_reader_sees_no_clean_end_though_a_writer_was_told_of_the_reset_first(
    sock: TunnelSocket, bridge: Bridge, how: str
) -> None:
    """The kernel tells of it once."""
    info = sock.session
    assert info is not None
    bridge.relay().reset()
    with pytest.raises(TunnelResetError):
        repeat_until_it_raises(lambda: sock.sendall(b"x"))
    for _ in range(2):
        with pytest.raises(TunnelResetError, match="TARGET_RESET"):
            use(sock, how)
    assert sock.recv(0) == b""


def test_a_timeout_is_the_sockets_own_and_passes(sock: TunnelSocket, bridge: Bridge) -> None:
    sock.settimeout(0.05)
    with pytest.raises(TimeoutError):
        sock.recv(1)
    bridge.relay().write(b"x")
    sock.settimeout(HANG)
    assert sock.recv(1) == b"x"


def test_select_tells_when_there_is_something_to_read(sock: TunnelSocket, bridge: Bridge) -> None:
    assert select.select([sock], [sock], [], 0) == ([], [sock], [])
    bridge.relay().write(b"x")
    assert select.select([sock], [], [], HANG)[0] == [sock]
    sock.close()
    assert bridge.relay().wait_aborted().code is Code.DIALER_RESET
    wait_until(_no_driver, "the end of the tunnel, which has told the bridge")


def test_a_file_made_of_it_reads_lines_and_writes(sock: TunnelSocket, bridge: Bridge) -> None:
    bridge.relay().write(b"220 ready\r\n250 ok\r\n")
    with sock.makefile("rwb") as file:
        assert file.readline() == b"220 ready\r\n"
        assert file.readline() == b"250 ok\r\n"
        file.write(b"\n")
        file.flush()
    assert bridge.relay().read(1) == b"\n"


def test_a_dup_carries_on_when_the_original_is_closed(sock: TunnelSocket, bridge: Bridge) -> None:
    with sock.dup() as copy:
        sock.close()
        copy.sendall(b"copy")
        assert bridge.relay().read(4) == b"copy"
        bridge.relay().write(b"back")
        copy.settimeout(HANG)
        assert copy.recv(4) == b"back"


def test_the_tunnel_lives_as_long_as_the_descriptor_not_the_object(bridge: Bridge, kind: Kind) -> None:
    sock = kind.dialer(bridge.url, KEY).dial(TARGET, HANG)
    descriptor = sock.detach()
    del sock
    gc.collect()
    with socket.socket(fileno=descriptor) as plain:
        plain.settimeout(HANG)
        plain.sendall(b"alive")
        assert bridge.relay().read(5) == b"alive"
        bridge.relay().write(b"yes")
        assert plain.recv(3) == b"yes"


def test_tls_inside_the_tunnel(tmp_path: Path, kind: Kind) -> None:
    certificates = create_certificates(tmp_path)
    inside, outside = tcp_pair()

    def target() -> None:
        with certificates.server_context().wrap_socket(inside, server_side=True) as tls:
            while data := tls.recv(65_536):
                tls.sendall(data)

    def play(relay: Relay) -> None:
        def pump() -> None:
            while data := outside.recv(65_536):
                relay.write(data)
            relay.write_eof()

        def feed() -> None:
            while data := relay.read_some():
                outside.sendall(data)
            outside.shutdown(socket.SHUT_WR)

        threads.extend(threading.Thread(target=each) for each in (pump, feed))

    threads = [threading.Thread(target=target)]
    data = noise(300_000)
    with outside, Bridge(Behaviour(script=play)) as bridge:
        sock = kind.dialer(bridge.url, KEY).dial(TARGET, HANG)
        for thread in threads:
            thread.start()
        with ssl.create_default_context(cafile=certificates.ca_file).wrap_socket(
            sock, server_hostname="localhost"
        ) as tls:
            tls.settimeout(HANG)
            sender = threading.Thread(target=tls.sendall, args=(b"hello",))
            sender.start()
            sender.join(HANG)
            assert tls.recv(5) == b"hello"
            for at in range(0, len(data), 30_000):
                tls.sendall(data[at : at + 30_000])
                got = b""
                while len(got) < 30_000:
                    got += tls.recv(30_000 - len(got))
                assert got == data[at : at + 30_000]
        for thread in threads:
            thread.join(HANG)
        assert not any(thread.is_alive() for thread in threads)


def test_tls_meets_a_reset_as_a_plain_error_and_the_session_names_the_cause(
    tmp_path: Path, kind: Kind
) -> None:
    context = ssl.create_default_context()
    with Bridge() as bridge:
        sock = kind.dialer(bridge.url, KEY).dial(TARGET, HANG)
        session = sock.session
        relay = bridge.relay()

        def reset_at_client_hello() -> None:  # before it, wrap_socket raises and leaves its socket open
            relay.read_some()
            relay.reset(Code.TARGET_RESET)

        resetting = threading.Thread(target=reset_at_client_hello, name="relay's user")
        resetting.start()
        with pytest.raises(OSError, match="reset"), sock:
            context.wrap_socket(sock, server_hostname="db.internal")
        resetting.join(HANG)
        assert session is not None
        assert isinstance(session.error, TunnelResetError)


# -- resets -------------------------------------------------------------------------------------


def test_a_reset_comes_after_every_byte_and_names_its_cause(sock: TunnelSocket, bridge: Bridge) -> None:
    data = noise(500_000)
    relay = bridge.relay()
    relay.write(data)
    relay.flush()
    relay.reset(Code.TARGET_RESET, "connection reset by the database")
    received = bytearray()
    with pytest.raises(TunnelResetError, match=r"reset (by the database|its TCP connection)") as caught:
        read_until_it_raises(lambda: sock.recv(10_000), received)
    assert received == data
    assert isinstance(caught.value, ConnectionResetError)
    assert caught.value.code is Code.TARGET_RESET
    assert "db.internal:5432" in str(caught.value)
    assert "outcome" in str(caught.value)
    assert sock.session is not None
    error = sock.session.error
    assert error is not None
    assert (type(error), str(error)) == (type(caught.value), str(caught.value))
    assert error.code is caught.value.code
    assert error.__traceback__ is None, "it would keep the frames that were at work, and their sockets"


def test_the_relays_time_limit_has_an_error_of_its_own(sock: TunnelSocket, bridge: Bridge) -> None:
    bridge.relay().reset(Code.RELAY_DEADLINE)
    with pytest.raises(RelayDeadlineError, match=r"15-minute limit .*dial again"):
        sock.recv(1)


@pytest.mark.parametrize("how", ["recv", "recv_into", "makefile", "send", "sendall", "sendmsg"])
def test_every_way_to_read_or_write_names_the_cause(sock: TunnelSocket, bridge: Bridge, how: str) -> None:
    bridge.relay().reset(Code.KILLED, "an operator")
    with pytest.raises(TunnelResetError, match="an operator"):
        repeat_until_it_raises(lambda: use(sock, how))


def test_a_bare_descriptor_gets_the_plain_error_and_the_session_knows_why(
    sock: TunnelSocket, bridge: Bridge
) -> None:
    bridge.relay().reset(Code.TARGET_RESET)
    with sock.dup() as copy, pytest.raises(ConnectionResetError) as caught:
        copy.recv(1)
    assert not isinstance(caught.value, TunnelResetError)
    assert sock.session is not None
    assert sock.session.error is not None
    assert sock.session.error.code is Code.TARGET_RESET


def test_a_gateway_that_goes_away_for_good_is_a_reset_that_says_so(kind: Kind) -> None:
    with Bridge(Behaviour(grace=0.3)) as bridge, kind.dialer(bridge.url, KEY).dial(TARGET, HANG) as sock:
        sock.settimeout(HANG)
        bridge.server.close()
        with pytest.raises(TunnelResetError, match=r"WebSocket.*DIALER_GONE"):
            sock.recv(1)


def test_closing_with_unread_bytes_resets_the_target(bridge: Bridge, kind: Kind) -> None:
    sock = kind.dialer(bridge.url, KEY).dial(TARGET, HANG)
    relay = bridge.relay()
    relay.write(b"nobody reads this")
    relay.flush()
    select.select([sock], [], [], HANG)
    sock.close()
    assert relay.wait_aborted().code is Code.DIALER_RESET
    wait_until(_no_driver, "the end of the tunnel, which has told the bridge")


def _no_driver() -> bool:
    """A gateway that went away before it was told would be looked for as long as the grace."""
    return not [thread for thread in threading.enumerate() if thread.name == "emissary-driver"]


def test_a_reset_of_ours_resets_the_target(bridge: Bridge, kind: Kind) -> None:
    sock = kind.dialer(bridge.url, KEY).dial(TARGET, HANG)
    reset(sock)
    assert bridge.relay().wait_aborted().code is Code.DIALER_RESET
    wait_until(_no_driver, "the end of the tunnel, which has told the bridge")


def test_a_plain_close_is_an_end_of_file_at_the_target(kind: Kind) -> None:
    with Bridge(Behaviour(script=echo)) as bridge:
        with kind.dialer(bridge.url, KEY).dial(TARGET, HANG) as sock:
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
        bridge.relay().wait_over()
        assert bridge.relay().aborted is None
