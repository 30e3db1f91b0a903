"""Twenty megabytes each way, byte for byte, over a gateway that reorders half of all messages."""

from __future__ import annotations

import hashlib
import random
import socket
import threading

import pytest

from emissary_local import Faults, LocalCloud
from tests.helpers.kinds import OWN, SHARED, Kind
from tests.helpers.local_cloud import DIAL, LINUX_ONLY, PARAMETERS, TEMPLATE, audit_record, dialer_of
from tests.helpers.patience import HANG
from tests.helpers.servers import Server

pytestmark = LINUX_ONLY

SIZE = 20_000_000


def send_and_end(sock: socket.socket, data: bytes) -> None:
    sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)


def digest(sock: socket.socket) -> tuple[int, str]:
    """Size and digest of everything that comes."""
    size, heard = 0, hashlib.sha256()
    while data := sock.recv(1 << 20):
        size += len(data)
        heard.update(data)
    return size, heard.hexdigest()


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "kind"), [(1, OWN), (2, SHARED)], ids=str)
def test_twenty_megabytes_each_way_at_once_survive_reordering(seed: int, kind: Kind) -> None:
    up, down = (random.Random(f"{seed} {way}").randbytes(SIZE) for way in ("up", "down"))
    heard: list[tuple[int, str]] = []

    def serve(connection: socket.socket) -> None:
        sender = threading.Thread(target=send_and_end, args=(connection, down), name="target's sender")
        sender.start()
        heard.append(digest(connection))
        sender.join()

    with (
        LocalCloud(TEMPLATE, parameters=PARAMETERS, faults=Faults(seed=seed, reorder=0.5)) as cloud,
        dialer_of(cloud, **kind.options) as dialer,
        Server(serve) as target,
        dialer.dial(target, DIAL) as sock,
    ):
        sock.settimeout(HANG)
        sender = threading.Thread(target=send_and_end, args=(sock, up), name="dialer's sender")
        sender.start()
        received = digest(sock)
        sender.join(HANG)
        session = sock.session
        assert session is not None
        record = audit_record(cloud, session.id)
    assert received == (SIZE, hashlib.sha256(down).hexdigest())
    assert heard == [(SIZE, hashlib.sha256(up).hexdigest())]
    assert record["code"] == "OK"
    assert record["dialer_bytes"] > SIZE
    assert record["relay_bytes"] > SIZE
