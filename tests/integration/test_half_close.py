"""Each direction ends on its own, as TCP's do; and when all has ended, nothing is left."""

from __future__ import annotations

import hashlib
import os
import pathlib
import socket
import threading

import pytest

from emissary_lib import Dialer
from emissary_local import LocalCloud
from tests.helpers.kinds import Kind
from tests.helpers.local_cloud import DIAL, LINUX_ONLY, PARAMETERS, TEMPLATE, dialer_of, only_connection_ended
from tests.helpers.patience import HANG, wait_until
from tests.helpers.processes import descendants
from tests.helpers.servers import Server, after_the_end, echo, sink
from tests.helpers.tunnels import read_to_end

pytestmark = LINUX_ONLY


@pytest.mark.parametrize("sent", [0, 1, 200_000])
def test_target_answers_a_megabyte_after_the_client_has_ended_its_side(
    either_dialer: Dialer, sent: int
) -> None:
    question, answer = os.urandom(sent), os.urandom(1_000_000)
    heard: list[bytes] = []

    def reply(received: bytes) -> bytes:
        heard.append(received)
        return answer

    with Server(after_the_end(reply)) as target, either_dialer.dial(target, DIAL) as sock:
        sock.settimeout(HANG)
        sock.sendall(question)
        sock.shutdown(socket.SHUT_WR)
        assert read_to_end(sock) == answer
    assert heard == [question]


def test_client_sends_a_megabyte_after_the_target_has_ended_its_side(
    either_dialer: Dialer, cloud: LocalCloud
) -> None:
    data = os.urandom(1_000_000)
    heard = hashlib.sha256()
    whole = threading.Event()

    def close_then_read(connection: socket.socket) -> None:
        connection.shutdown(socket.SHUT_WR)
        while chunk := connection.recv(65_536):
            heard.update(chunk)
        whole.set()

    with Server(close_then_read) as target, either_dialer.dial(target, DIAL) as sock:
        sock.settimeout(HANG)
        session = sock.session
        assert session is not None
        assert sock.recv(1) == b""
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        assert whole.wait(HANG)
        assert heard.digest() == hashlib.sha256(data).digest()
        assert only_connection_ended(cloud, session.id) == "OK"


def test_close_right_after_sending_loses_nothing(either_dialer: Dialer) -> None:
    data = os.urandom(1_000_000)
    heard: list[bytes] = []
    whole = threading.Event()

    def keep(received: bytes) -> bytes:
        heard.append(received)
        whole.set()
        return b""

    with Server(after_the_end(keep)) as target:
        with either_dialer.dial(target, DIAL) as sock:
            sock.sendall(data)
        assert whole.wait(HANG)
    assert heard == [data]


def alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in pathlib.Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.slow
def test_nothing_is_left_afterwards(kind: Kind) -> None:
    threads = set(threading.enumerate())
    with LocalCloud(TEMPLATE, parameters=PARAMETERS) as cloud, dialer_of(cloud, **kind.options) as dialer:
        with Server(echo) as target, dialer.dial(target, DIAL) as sock:
            sock.settimeout(HANG)
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
            processes = descendants(cloud.pid) | {cloud.pid}
            assert len(processes) > 4  # the table, the forker, and at least the functions that ran
        wait_until(lambda: set(threading.enumerate()) <= threads, "the threads' end")
    # The cloud was closed beneath one that had just ended; whatever it had started is gone with it.
    wait_until(lambda: not any(map(alive, processes)), "the processes' end")


@pytest.mark.slow
def test_cloud_that_ends_under_an_open_tunnel_cuts_it_off_after_the_grace(kind: Kind) -> None:
    parameters = {**PARAMETERS, "RelayGraceSeconds": "5"}
    with (
        LocalCloud(TEMPLATE, parameters=parameters) as cloud,
        dialer_of(cloud, **kind.options) as dialer,
    ):
        with Server(sink) as target, dialer.dial(target, DIAL) as sock:
            sock.settimeout(HANG)
            cloud.close()
            with pytest.raises(ConnectionResetError):
                sock.recv(1)
