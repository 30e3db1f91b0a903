"""Either WebSocket cut twenty times during a transfer: nothing is lost, and nobody waits for long."""

from __future__ import annotations

import itertools
import sys
import threading
import time

import pytest

from emissary_lib import Dialer, LocalCloud
from tests.helpers.cloudside import DIAL, LINUX_ONLY, SOON, audit_record
from tests.helpers.servers import Server
from tests.helpers.trouble import CUT_WAYS, Stream, cut

pytestmark = LINUX_ONLY

CUTS = 20

#: Bytes that have to arrive between two cuts, so that each meets a transfer that has recovered.
BETWEEN = 1_000_000

#: Longest pause that a cut may cause, in seconds: one, and what a busy machine adds.
PAUSE = 5.0


@pytest.mark.parametrize("way", ["up", "down"])
def test_twenty_cuts_of_every_kind_lose_no_byte_and_pause_for_a_moment(
    cloud: LocalCloud, dialer: Dialer, way: str, capsys: pytest.CaptureFixture[str]
) -> None:
    stream = Stream(seed=CUTS)
    at_target = stream.receive if way == "up" else stream.send
    at_user = stream.send if way == "up" else stream.receive
    pauses: list[tuple[float, str]] = []
    with Server(at_target) as target, dialer.dial(target, DIAL) as sock:
        sock.settimeout(SOON)
        user = threading.Thread(target=at_user, args=(sock,), name="user")
        user.start()
        try:
            stream.wait_for_more(BETWEEN, SOON)
            for side, how in itertools.islice(itertools.cycle(CUT_WAYS), CUTS):
                moment = cut(cloud, side, how)
                stream.wait_for_more(BETWEEN, SOON)
                pauses.append((stream.pause_after(moment, time.monotonic()), f"{side} {how}"))
        finally:
            stream.end()
            user.join(SOON)
        assert stream.done.wait(SOON)
        info = sock.session
        assert info is not None
    record = audit_record(cloud, info.id)
    longest = ", ".join(f"{pause:.2f} s ({what})" for pause, what in sorted(pauses, reverse=True)[:4])
    with capsys.disabled():
        sys.stdout.write(
            f"\n{way}: {stream.size / 1e6:.0f} MB, {len(pauses)} cuts; longest pauses: {longest}\n"
        )
    assert stream.failure is None
    assert info.error is None
    assert stream.identical
    assert record["code"] == "OK"
    assert info.counters.resumes >= CUTS // 3  # those of the dialer's own connection
    assert max(pauses)[0] < PAUSE
