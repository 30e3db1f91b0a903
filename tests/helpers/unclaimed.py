"""Sessions whose dialers leave before a relay has claimed them, on the local cloud."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from emissary_lib.protocol.wire.frames import FrameType
from emissary_local import Faults, LocalCloud
from tests.helpers.local_cloud import log_lines
from tests.helpers.patience import wait_until
from tests.helpers.raw_dialer import RawDialer


@contextlib.contextmanager
def nobody_let_in(cloud: LocalCloud) -> Iterator[None]:
    """While the block runs, every upgrade is refused for now."""
    cloud.set_faults(Faults(connect_429=1.0))
    try:
        yield
    finally:
        cloud.set_faults(Faults())


@contextlib.contextmanager
def launched_unclaimed(
    cloud: LocalCloud, target: tuple[str, int], dialers: Sequence[RawDialer]
) -> Iterator[None]:
    """While the block runs, a relay of each dialer's is launched and cannot claim.

    Behind the block, each session has ended, and its relay has come too late and was refused.
    """

    def wait_for(message: str) -> None:
        wait_until(lambda: all(message in messages(each) for each in dialers), f"{message!r} in the log")

    def messages(dialer: RawDialer) -> list[str]:
        return [line["message"] for line in log_lines(cloud, dialer.session)]

    with nobody_let_in(cloud):
        for each in dialers:
            each.send(FrameType.OPENING, each.opening(target))
        wait_for("relay launched")
        yield
        for each in dialers:
            each.end()
    wait_for("not ours to claim")
