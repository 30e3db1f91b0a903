"""One run of all that a stack is used for, which fails if AWS would have refused a function anything."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from typing import Final

import pytest

from emissary_lib import Dialer, EmissaryError, LocalCloud
from emissary_lib.cli import main as cli
from emissary_lib.exit_status import Exit
from emissary_lib.protocol.session.keepalive import KeepaliveTimes
from emissary_local import Faults
from tests.helpers.cloudside import audit_records, eventually

#: The statement by which $disconnect tells peers.
TELLS_PEERS: Final = ("DisconnectFunction", "PostToPeers")

KEEPALIVE: Final = KeepaliveTimes(interval=0.5, when_unacked=0.3, deadline=0.5, repeat=0.2)


def exchange(sock: socket.socket, data: bytes) -> None:
    sock.sendall(data)
    received = b""
    while len(received) < len(data):
        more = sock.recv(65_536)
        assert more, "the tunnel ended"
        received += more
    assert received == data


def run(cloud: LocalCloud, target: tuple[str, int], timeout: float, patience: float) -> str:
    """The scenario, which fails if AWS would have refused a function anything, whoever feels it.

    Args:
        cloud, target, timeout, patience: As for :func:`scenario`.

    Returns:
        As :func:`scenario`.

    Raises:
        PermissionError: A call was refused; what else failed is its cause.
    """
    before, open_before = len(cloud.denials()), not_disconnected(cloud)
    session, failure = "", None
    try:
        session = scenario(cloud, target, timeout, patience)
        # $disconnect of the last connections may still be running.
        eventually(
            lambda: cloud.denials()[before:] or not_disconnected(cloud) <= open_before or None,
            "$disconnect of every connection",
        )
    except (EmissaryError, OSError) as exc:
        failure = exc
    for refused in cloud.denials()[before:]:
        raise PermissionError(f"AccessDenied: {refused.message}") from failure
    if failure is not None:
        raise failure
    return session


def not_disconnected(cloud: LocalCloud) -> int:
    """How many connections there are of which $disconnect has not run to its end."""
    meter = cloud.meter
    return meter.connects - meter.refused_connects - meter.invocations.get("DisconnectFunction", 0)


def scenario(cloud: LocalCloud, target: tuple[str, int], timeout: float, patience: float) -> str:
    """All that a stack is used for: sessions, lost WebSockets, a question for health, a kill.

    Args:
        cloud: The stack.
        target: Sends back what comes.
        timeout: For each dial and each answer, in seconds.
        patience: For the audit record of the killed session, in seconds.

    Returns:
        The id of the session that ended well.
    """
    with Dialer(cloud.url, cloud.key, keepalive=KEEPALIVE) as dialer:
        ended = cut_and_closed(cloud, dialer, target, timeout)
        killed(cloud, dialer, target, timeout, patience)
        return ended


def cut_and_closed(cloud: LocalCloud, dialer: Dialer, target: tuple[str, int], timeout: float) -> str:
    """Dial, echo, lose WebSockets with and without notice, come back, close; the session's id."""
    with dialer.dial(target, timeout) as sock:
        sock.settimeout(timeout)
        info = sock.session
        assert info is not None
        exchange(sock, b"hello")
        assert dialer.health(timeout).key_ids == (cloud.key.key_id,)
        # The gateway still holds this one when its owner comes back, and $default closes it.
        assert cloud.cut("dialer", "silent") == 1
        exchange(sock, b"after a silent death")
        with nobody_let_in(cloud):  # else the dialer may be back before $disconnect has looked
            before = told_by_disconnect(cloud)
            assert cloud.cut("dialer", "reset", -1) == 1
            eventually(lambda: told_by_disconnect(cloud) > before or None, "$disconnect")
        exchange(sock, b"after a cut")
        assert cloud.cut("relay", "reset", -1) == 1
        exchange(sock, b"after another cut")
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(1) == b""
        return info.id


def killed(
    cloud: LocalCloud, dialer: Dialer, target: tuple[str, int], timeout: float, patience: float
) -> None:
    """Dial, be killed by an operator, and be recorded, once."""
    (table,) = cloud.tables.values()
    with dialer.dial(target, timeout) as sock, pytest.MonkeyPatch.context() as environment:
        sock.settimeout(timeout)
        exchange(sock, b"hello")
        info = sock.session
        assert info is not None
        for name, value in cloud.operator.items():
            environment.setenv(name, value)
        command = ["sessions", "kill", info.id, "--table", table, "--url", cloud.url]
        assert cli.main(command) == Exit.OK
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
    deadline = time.monotonic() + patience
    while not (records := audit_records(cloud, info.id)):
        if time.monotonic() > deadline:
            raise TimeoutError("the killed session has no audit record")
        time.sleep(0.01)
    assert [each["code"] for each in records] == ["KILLED"]


@contextlib.contextmanager
def nobody_let_in(cloud: LocalCloud) -> Iterator[None]:
    cloud.set_faults(Faults(connect_429=1.0))
    try:
        yield
    finally:
        cloud.set_faults(Faults())


def told_by_disconnect(cloud: LocalCloud) -> int:
    """How often $disconnect has posted to a peer, or was refused something."""
    posts = [each for each in cloud.permissions() if (each.function, each.name) == TELLS_PEERS]
    refused = [each for each in cloud.denials() if each.function == TELLS_PEERS[0]]
    return sum(posts[0].actions.values()) + len(refused)
