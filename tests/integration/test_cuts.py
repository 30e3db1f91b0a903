"""Either WebSocket cut twenty times during a transfer: nothing is lost."""

from __future__ import annotations

import itertools
import threading

import pytest
from _pytest.mark.structures import ParameterSet

from emissary_local import LocalCloud
from tests.helpers.cuts import CUT_WAYS, Stream, cut
from tests.helpers.kinds import OWN, SHARED, Kind
from tests.helpers.local_cloud import DIAL, LINUX_ONLY, audit_record, dialer_of
from tests.helpers.patience import HANG
from tests.helpers.servers import Server

pytestmark = LINUX_ONLY

CUTS = 20

#: Bytes that have to arrive between two cuts, so that each meets a transfer that has recovered.
BETWEEN = 1_000_000


def slow(*values: object) -> ParameterSet:
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("way", "kind"), [("down", OWN), slow("up", OWN), slow("down", SHARED), slow("up", SHARED)], ids=str
)
def test_twenty_cuts_of_every_kind_lose_no_byte(cloud: LocalCloud, way: str, kind: Kind) -> None:
    stream = Stream(seed=CUTS)
    at_target = stream.receive if way == "up" else stream.send
    at_user = stream.send if way == "up" else stream.receive
    with (
        Server(at_target) as target,
        dialer_of(cloud, **kind.options) as dialer,
        dialer.dial(target, DIAL) as sock,
    ):
        sock.settimeout(HANG)
        user = threading.Thread(target=at_user, args=(sock,), name="user")
        user.start()
        try:
            stream.wait_for_more(BETWEEN)
            for side, how in itertools.islice(itertools.cycle(CUT_WAYS), CUTS):
                cut(cloud, side, how)
                stream.wait_for_more(BETWEEN)
        finally:
            stream.end()
            user.join(HANG)
        assert stream.done.wait(HANG)
        info = sock.session
        assert info is not None
    record = audit_record(cloud, info.id)
    assert stream.failure is None
    assert info.error is None
    assert stream.identical
    assert record["code"] == "OK"
    assert info.counters.resumes >= CUTS // 3  # those of the dialer's own connection
