"""One run of all that a stack is used for, which fails if AWS would have refused a function anything."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final, TypeVar

import pytest

from emissary_lib import Dialer, EmissaryError
from emissary_lib.cli import main as cli
from emissary_lib.client.socket import TunnelSocket
from emissary_lib.exit_status import Exit
from emissary_lib.protocol.session.keepalive import KeepaliveTimes
from emissary_lib.protocol.wire.frames import FrameType
from emissary_local import LocalCloud
from emissary_local.aws.iam.report import Denial
from tests.helpers.local_cloud import audit_records, eventually
from tests.helpers.patience import HANG, wait_until
from tests.helpers.raw_dialer import RawDialer
from tests.helpers.unclaimed import launched_unclaimed, nobody_let_in

T = TypeVar("T")

#: The statement by which $disconnect tells peers.
TELLS_PEERS: Final = ("DisconnectFunction", "PostToPeers")

#: A silent death is noticed soon. Noticing one that is none only delays: the tunnel comes back.
KEEPALIVE: Final = KeepaliveTimes(interval=5.0, when_unacked=0.3, deadline=4.0, repeat=0.2)


class Patience:
    """Waits as long as it takes, or, once something was refused, no longer than makes sense.

    Args:
        cloud: The stack.
        in_vain: How long each wait may be after a refusal, in seconds.
    """

    def __init__(self, cloud: LocalCloud, in_vain: float) -> None:
        self._cloud = cloud
        self._before = len(cloud.denials())
        self.in_vain = in_vain

    def refused(self) -> list[Denial]:
        """What was refused since this was made."""
        return self._cloud.denials()[self._before :]

    def __call__(self, attempt: Callable[[], T]) -> T:
        """Do what waits for ``in_vain``; again if it was too short and nothing has been refused."""
        end = time.monotonic() + HANG
        while True:
            try:
                return attempt()
            except TimeoutError:
                if self.refused() or time.monotonic() > end:
                    raise


def exchange(sock: socket.socket, data: bytes, patience: Patience) -> None:
    """Send ``data``, and wait until it has come back."""
    sock.sendall(data)
    received = b""
    while len(received) < len(data):
        more = patience(lambda: sock.recv(65_536))
        assert more, "the tunnel ended"
        received += more
    assert received == data


def run(cloud: LocalCloud, target: tuple[str, int], in_vain: float = HANG, records: float = HANG) -> str:
    """The scenario, which fails if AWS would have refused a function anything, whoever feels it.

    Args:
        cloud: The stack.
        target: Sends back what comes.
        in_vain: How long each dial and each answer may take once something was refused, in seconds.
        records: The same for the audit record of the killed session.

    Returns:
        The id of the session that ended well.

    Raises:
        PermissionError: A call was refused; what else failed is its cause.
    """
    patience, open_before = Patience(cloud, in_vain), not_disconnected(cloud)
    session, failure = "", None
    try:
        session = scenario(cloud, target, patience, records)
        # $disconnect of the last connections may still be running.
        eventually(
            lambda: patience.refused() or not_disconnected(cloud) <= open_before or None,
            "$disconnect of every connection",
        )
    except (EmissaryError, OSError) as exc:
        failure = exc
    for refused in patience.refused():
        raise PermissionError(f"AccessDenied: {refused.message}") from failure
    if failure is not None:
        raise failure
    return session


def not_disconnected(cloud: LocalCloud) -> int:
    """How many connections there are of which $disconnect has not run to its end."""
    meter = cloud.meter
    return meter.connects - meter.refused_connects - meter.invocations.get("DisconnectFunction", 0)


def scenario(cloud: LocalCloud, target: tuple[str, int], patience: Patience, records: float) -> str:
    """All that a stack is used for: sessions, lost WebSockets, a question for health, a kill, a hasty end.

    Returns:
        The id of the session that ended well.
    """
    with Dialer(cloud.url, cloud.key, keepalive=KEEPALIVE, connections_per_relay=1) as dialer:
        ended = cut_and_closed(cloud, dialer, target, patience)
        killed(cloud, dialer, target, patience, records)
        launched_by(cloud, target, patience, at_the_door=True)
        launched_by(cloud, target, patience, at_the_door=False)
        with RawDialer(cloud.url, cloud.key) as hasty, launched_unclaimed(cloud, target, [hasty]):
            pass
        return ended


def launched_by(cloud: LocalCloud, target: tuple[str, int], patience: Patience, *, at_the_door: bool) -> None:
    """A session that is launched by its upgrade alone, or by its opening alone, and ended."""
    with RawDialer(cloud.url, cloud.key, shows=target if at_the_door else None) as dialer:
        if not at_the_door:
            dialer.send(FrameType.OPENING, dialer.opening(target))
        patience(lambda: dialer.opened(patience.in_vain))
        dialer.end()


@contextlib.contextmanager
def tunnel(dialer: Dialer, target: tuple[str, int], patience: Patience) -> Iterator[tuple[TunnelSocket, str]]:
    """A session over which what is sent comes back, its socket, and its id."""
    with patience(lambda: dialer.dial(target, patience.in_vain)) as sock:
        sock.settimeout(patience.in_vain)
        assert sock.session is not None
        yield sock, sock.session.id


def cut_and_closed(cloud: LocalCloud, dialer: Dialer, target: tuple[str, int], patience: Patience) -> str:
    """Dial, echo, lose WebSockets with and without notice, come back, close; the session's id."""
    with tunnel(dialer, target, patience) as (sock, session):
        exchange(sock, b"hello", patience)
        health = patience(lambda: dialer.health(patience.in_vain))
        assert health.key_ids == (cloud.key.key_id,)
        # The gateway still holds this one when its owner comes back, and $default closes it.
        cut(cloud, "dialer", "silent")
        exchange(sock, b"after a silent death", patience)
        with nobody_let_in(cloud):  # else the dialer may be back before $disconnect has looked
            before = told_by_disconnect(cloud)
            cut(cloud, "dialer", "reset")
            eventually(lambda: told_by_disconnect(cloud) > before or None, "$disconnect")
        exchange(sock, b"after a cut", patience)
        cut(cloud, "relay", "reset")
        exchange(sock, b"after another cut", patience)
        sock.shutdown(socket.SHUT_WR)
        assert patience(lambda: sock.recv(1)) == b""
        return session


def killed(
    cloud: LocalCloud, dialer: Dialer, target: tuple[str, int], patience: Patience, records: float
) -> None:
    """Dial, be killed by an operator, and be recorded, once."""
    table = cloud.tables["SessionTable"]
    with tunnel(dialer, target, patience) as (sock, session), pytest.MonkeyPatch.context() as environment:
        exchange(sock, b"hello", patience)
        for name, value in cloud.operator.items():
            environment.setenv(name, value)
        command = ["sessions", "kill", session, "--table", table, "--url", cloud.url]
        assert cli.main(command) == Exit.OK
        with pytest.raises(ConnectionResetError):
            patience(lambda: sock.recv(1))
    end = time.monotonic() + records
    while not (found := audit_records(cloud, session)):
        if time.monotonic() > end:
            raise TimeoutError("the killed session has no audit record")
        threading.Event().wait(0.01)
    assert [each["code"] for each in found] == ["KILLED"]


def cut(cloud: LocalCloud, side: str, how: str) -> None:
    """Cut the newest connection of a side, once there is one: it may just be coming back."""
    wait_until(lambda: cloud.cut(side, how, -1) == 1, f"a connection of the {side}")


def told_by_disconnect(cloud: LocalCloud) -> int:
    """How often $disconnect has posted to a peer, or was refused something."""
    posts = [each for each in cloud.permissions() if (each.function, each.name) == TELLS_PEERS]
    refused = [each for each in cloud.denials() if each.function == TELLS_PEERS[0]]
    return sum(posts[0].actions.values()) + len(refused)
