"""A query that takes longer than the gateway and the network stand silence."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

import pg8000.dbapi
import pytest

from emissary_lib import Dialer
from emissary_lib.protocol.constants import PING_INTERVAL
from emissary_lib.protocol.session.keepalive import KeepaliveTimes
from emissary_local import LocalCloud
from emissary_local.limits import Limits
from tests.helpers.local_cloud import DIAL, LINUX_ONLY, PARAMETERS, TEMPLATE, dialer_of, eventually
from tests.helpers.patience import HANG
from tests.helpers.servers import Server, greeter
from tests.soak import leaks
from tools.demo.postgres import Postgres

pytestmark = [LINUX_ONLY, pytest.mark.slow]

#: Seconds of silence after which the gateway cuts here, and of the query. A ping each half second may be late
#: by many of itself.
IDLE: Final = 5.0
QUERY: Final = 7.0
OFTEN: Final = 0.5

#: Seconds of silence after which NAT gateways, Network Load Balancers and VPC endpoints forget a TCP flow.
#: Source: Amazon VPC user guide, "Troubleshoot NAT gateways" (idle timeout of 350 s).
FORGOTTEN: Final = 350.0


@pytest.fixture(scope="module")
def hasty() -> Iterator[LocalCloud]:
    """A cloud whose gateway waits for :data:`IDLE` seconds instead of ten minutes."""
    with LocalCloud(TEMPLATE, parameters=PARAMETERS, limits=Limits(idle_seconds=IDLE)) as running:
        yield running


def losses_over_a_long_query(cloud: LocalCloud, postgres: Postgres, interval: float) -> int:
    """Run the query, with a PING of the dialer's every ``interval`` seconds; how often the tunnel was cut."""
    times = KeepaliveTimes(interval=interval, when_unacked=interval, deadline=HANG, repeat=HANG)
    with (
        dialer_of(cloud, keepalive=times) as dialer,
        dialer.dial((postgres.host, postgres.port), DIAL) as sock,
    ):
        sock.settimeout(HANG)
        connection = pg8000.dbapi.connect(
            user=postgres.user,
            password=postgres.password,
            database=postgres.database,
            sock=sock,
            ssl_context=None,
        )
        with contextlib.closing(connection):
            cursor = connection.cursor()
            cursor.execute("select pg_sleep(%s), 'slept'", (QUERY,))
            assert cursor.fetchall()[0][1] == "slept"
        info = sock.session
        assert info is not None
        return info.counters.link_losses


def test_query_longer_than_the_idle_limit_returns(hasty: LocalCloud, postgres: Postgres) -> None:
    def run(interval: float) -> int:
        return losses_over_a_long_query(hasty, postgres, interval)

    assert Limits().idle_seconds / 2 > PING_INTERVAL  # so that one of them may be late
    with ThreadPoolExecutor(2) as pool:
        kept, mended = pool.map(run, [OFTEN, 2 * HANG])
    assert kept == 0  # kept, not mended
    assert mended > 0  # the gateway does cut: without the pings the answer comes over a second connection


def some_timers(pid: int | str, port: int) -> list[float] | None:
    """Of a process's TCP connections to a port that have nothing under way: seconds until the kernel asks.

    None: there is no such timer, as long as data is under way, or because keepalive is off.
    Source: Linux, Documentation/networking/proc_net_tcp.rst (``tr`` is 2, ``tm->when`` in 1/100 s).
    """
    ours = leaks.sockets(pid)
    timers = [row[5].split(":") for row in leaks.tcp_rows() if row[9] in ours and leaks.port(row[2]) == port]
    return [int(when, 16) / 100 for kind, when in timers if kind == "02"] or None


def test_no_flow_is_silent_for_as_long_as_the_network_remembers_it(cloud: LocalCloud, dialer: Dialer) -> None:
    """By the kernel's timers of the real sockets: nothing on this machine forgets a flow."""
    gateway = int(cloud.url.split(":")[2].split("/")[0])
    with Server(greeter(b"x")) as target, dialer.dial(target, DIAL) as sock:
        sock.settimeout(HANG)
        assert sock.recv(1) == b"x"
        (relay,) = leaks.relays(cloud.pid, [target[1]])
        flows: list[tuple[str, int | str, int]] = [
            ("the relay's to the target", relay, target[1]),
            ("the relay's to the gateway", relay, gateway),
            ("the dialer's to the gateway", "self", gateway),
        ]
        for whose, pid, port in flows:
            timers = eventually(partial(some_timers, pid, port), whose)
            assert max(timers) < FORGOTTEN, whose
