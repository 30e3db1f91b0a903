"""A gateway that passes on no message of more than one fragment, and one that throttles by closing."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Any

import pytest

from emissary_lib.bridge import items
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.constants import MAX_PAYLOAD
from emissary_lib.protocol.wire.frames import Flag, FrameType
from emissary_lib.protocol.wire.payloads import Reset
from emissary_local import Faults, LocalCloud
from tests.helpers.costs import operator_client
from tests.helpers.kinds import Kind
from tests.helpers.local_cloud import DIAL, LINUX_ONLY, PARAMETERS, TEMPLATE, dialer_of
from tests.helpers.patience import HANG, wait_until
from tests.helpers.raw_dialer import RawDialer
from tests.helpers.servers import Server, echo
from tests.helpers.ws_server import noise

pytestmark = [LINUX_ONLY, pytest.mark.slow]

#: Many long messages.
SIZE = 30 * MAX_PAYLOAD

REFUSALS: dict[str, dict[str, Any]] = {
    "they vanish": {"long_lost": 1.0},
    "1009 and 413": {"long_refused": 1.0},
}
CLOSES: dict[str, dict[str, Any]] = {
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


def check_whole(
    cloud: LocalCloud, kind: Kind, at_first: Faults, then: Faults, *, until_cut: bool = False
) -> None:
    """Bulk both ways, under some faults and then under others; if wanted, until a connection was lost."""
    with Server(echo) as target, dialer_of(cloud, **kind.options) as dialer:
        try:
            cloud.set_faults(at_first)
            with dialer.dial(target, DIAL) as sock:
                sock.settimeout(HANG)
                for faults in (at_first, then):
                    cloud.set_faults(faults)
                    data = noise(SIZE)
                    assert echoed(sock, data) == data
                assert sock.session is not None
                while until_cut and not sock.session.counters.link_losses:
                    assert echoed(sock, data) == data
                assert sock.session.error is None
        finally:
            cloud.set_faults(Faults())


@pytest.mark.parametrize("withdrawn", [False, True], ids=["from the start", "in the middle"])
@pytest.mark.parametrize("how", REFUSALS)
def test_bulk_goes_on_whole_each_way_where_long_messages_do_not_pass(
    kind: Kind, how: str, withdrawn: bool
) -> None:
    faults = Faults(**REFUSALS[how])
    with LocalCloud(TEMPLATE, parameters=PARAMETERS) as cloud:  # of its own: the stack remembers
        check_whole(cloud, kind, Faults() if withdrawn else faults, faults)


@pytest.mark.parametrize("how", CLOSES)
def test_bulk_goes_on_whole_each_way_whatever_connections_are_closed_with(
    sick: LocalCloud, kind: Kind, how: str
) -> None:
    faults = Faults(**CLOSES[how])
    check_whole(sick, kind, faults, faults, until_cut=True)


def test_a_key_holders_word_is_enough_for_the_stack_until_it_is_told_to_forget() -> None:
    """What docs/security.md says of short messages for everybody, and how to end it."""
    with contextlib.ExitStack() as stack:
        cloud = stack.enter_context(LocalCloud(TEMPLATE, parameters=PARAMETERS))
        target = stack.enter_context(Server(echo))
        dialer = stack.enter_context(RawDialer(cloud.url, cloud.key))
        client = operator_client(cloud)
        stack.callback(client.close)
        dialer.send(FrameType.OPENING, dialer.opening(target))
        dialer.opened()
        payload = Reset(Code.DIALER_RESET).encode()
        dialer.send(FrameType.RESET, payload, flags=Flag.SHORT, generation=2)
        dialer.receive(FrameType.ENDED)
        item = {"TableName": cloud.tables["SessionTable"], "Key": items.stack_key()}
        wait_until(lambda: "Item" in client.get_item(**item, ConsistentRead=True), "the stack remembers it")

        def begins_short() -> bool:
            with RawDialer(cloud.url, cloud.key) as another:
                another.send(FrameType.OPENING, another.opening(target))
                flags = another.receive(FrameType.OPENED).flags
                another.end()
            return bool(flags & Flag.SHORT)

        cloud.retire()  # an environment asks once a minute, and at its start
        assert begins_short()
        client.delete_item(**item)
        cloud.retire()
        assert not begins_short()
