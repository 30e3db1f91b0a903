"""A gateway that passes on no message of more than one fragment, and one that throttles by closing."""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest

from emissary_lib.protocol.constants import MAX_PAYLOAD
from emissary_local import Faults, LocalCloud
from tests.helpers.kinds import Kind
from tests.helpers.local_cloud import DIAL, LINUX_ONLY, dialer_of
from tests.helpers.patience import HANG
from tests.helpers.servers import Server, echo
from tests.helpers.ws_server import noise

pytestmark = [LINUX_ONLY, pytest.mark.slow]

#: Many long messages.
SIZE = 30 * MAX_PAYLOAD

REFUSALS: dict[str, dict[str, Any]] = {
    "they vanish": {"long_lost": 1.0},
    "1009 and 413": {"long_refused": 1.0},
    "throttled now and then": {"close_1008": 0.02},
    "internal errors": {"close_1011": 0.02},
    "restarts": {"close_1012": 0.02},
}


def echoed(sock: socket.socket, data: bytes) -> bytes:
    """Send all of it, and read as much again meanwhile."""
    sender = threading.Thread(target=lambda: sock.sendall(data))
    sender.start()
    got = bytearray()
    while len(got) < len(data) and (more := sock.recv(65_536)):
        got += more
    sender.join(HANG)
    return bytes(got)


@pytest.mark.parametrize("withdrawn", [False, True], ids=["from the start", "in the middle"])
@pytest.mark.parametrize("how", REFUSALS)
def test_bulk_goes_on_whole_each_way(sick: LocalCloud, kind: Kind, how: str, withdrawn: bool) -> None:
    with Server(echo) as target, dialer_of(sick, **kind.options) as dialer:
        try:
            if not withdrawn:
                sick.set_faults(Faults(**REFUSALS[how]))
            with dialer.dial(target, DIAL) as sock:
                sock.settimeout(HANG)
                first, second = noise(SIZE), noise(SIZE)
                assert echoed(sock, first) == first
                sick.set_faults(Faults(**REFUSALS[how]))
                assert echoed(sock, second) == second
                assert sock.session is not None
                assert sock.session.error is None
        finally:
            sick.set_faults(Faults())
