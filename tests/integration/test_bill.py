"""The bill of a session on the local cloud, beside what its audit record says of it."""

from __future__ import annotations

import functools
import socket

import pytest

from emissary_local import LocalCloud
from emissary_local.billing.meter import MeterSnapshot
from functions.common import audit
from tests.helpers.costs import refused, strangers
from tests.helpers.local_cloud import (
    DIAL,
    LINUX_ONLY,
    PARAMETERS,
    TEMPLATE,
    audit_record,
    dialer_of,
    relay_returned,
)
from tests.helpers.patience import HANG, wait_until
from tests.helpers.servers import Server, echo
from tests.helpers.tunnels import read_to_end
from tools.costs import REFUSED_LOG_BYTES

pytestmark = LINUX_ONLY

#: Bytes each way, and what base64 makes of them.
DATA = 300_000
CHARACTERS = DATA * 4 // 3


@pytest.mark.parametrize(
    ("ipv6", "way_out"), [("false", "NAT"), pytest.param("true", "IPv6", marks=pytest.mark.slow)]
)
def test_a_session_is_billed_for_its_bytes_on_the_wire_and_for_its_lines(ipv6: str, way_out: str) -> None:
    parameters = {**PARAMETERS, "RelayIpv6": ipv6}
    with LocalCloud(TEMPLATE, parameters=parameters) as cloud:
        with (
            Server(echo) as target,
            dialer_of(cloud, connections_per_relay=1) as dialer,
            dialer.dial(target, DIAL) as sock,
        ):
            sock.settimeout(HANG)
            session = sock.session
            assert session is not None
            sock.sendall(bytes(DATA))
            sock.shutdown(socket.SHUT_WR)
            assert len(read_to_end(sock)) == DATA
        relay_returned(cloud, session.id)
        wait_until(
            lambda: cloud.meter.invocations.get("DisconnectFunction") == 2, "both connections have gone"
        )
        record, meter = audit_record(cloud, session.id), cloud.meter
    # What is sent again on a busy machine is billed again.
    assert CHARACTERS < meter.internet_bytes < 2 * CHARACTERS
    if way_out == "NAT":
        assert 2 * CHARACTERS < meter.nat_bytes < 4 * CHARACTERS
    else:
        assert meter.nat_bytes == 0
    assert record["prices"].split()[-1] == way_out
    assert meter.log_bytes == pytest.approx(audit.LOG_BYTES, rel=0.25)


def test_a_refused_connect_logs_as_much_as_the_price_of_a_flood_is_reckoned_with() -> None:
    added_by_cloudwatch = 2 * 26
    with LocalCloud(TEMPLATE, parameters=PARAMETERS) as cloud:
        kinds = strangers(cloud)
        before = cloud.meter
        refused(cloud, kinds["an upgrade without headers"])  # the first starts cold, and logs that too
        wait_until(functools.partial(_invoked_since, cloud, before), "the first is over")
        for name, headers in kinds.items():
            before = cloud.meter
            refused(cloud, headers)
            wait_until(functools.partial(_invoked_since, cloud, before), f"{name} is over")
            logged = (cloud.meter - before).log_bytes + added_by_cloudwatch
            assert logged == pytest.approx(REFUSED_LOG_BYTES, rel=0.15), name


def _invoked_since(cloud: LocalCloud, before: MeterSnapshot) -> bool:
    return (cloud.meter - before).invocations.get("ConnectFunction", 0) > 0
