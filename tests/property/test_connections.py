"""What the bridge hears of a shared session's connections: seldom, and in the end what is true."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.constants import CONNECTIONS_INTERVAL
from emissary_lib.protocol.session.session import Session
from emissary_lib.protocol.wire.frames import FrameType
from emissary_lib.protocol.wire.payloads import CAPABILITY_SHARED, Connections
from tests.helpers.pair import frames, relay_session

NOW = 1000.0
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["opened", "closed", "refused", "lost", "restored", "nothing"]),
        st.floats(0.0, 15.0),
    ),
    max_size=40,
)


class Relay:
    """A session that is told of each change, and a driver that keeps its times."""

    def __init__(self) -> None:
        self.session: Session = relay_session(NOW, capabilities=CAPABILITY_SHARED)
        self.counts = Connections(0, 0, 0)
        self.now = NOW
        self.told: list[tuple[float, Connections]] = []

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        while (at := self.session.next_timeout()) is not None and at <= until:
            assert at >= self.now, "a driver that is called for what is over spins"
            self.now = at
            self.session.handle_timeout(at)
            self.hear()
        self.now = until

    def hear(self) -> None:
        for frame in frames(self.session, self.now):
            if frame.type == FrameType.CONNECTIONS:
                self.told.append((self.now, Connections.decode(frame.payload)))

    def step(self, what: str) -> None:
        opened, open_, refused = self.counts.opened, self.counts.open, self.counts.refused
        if what == "opened":
            self.counts = Connections(opened + 1, open_ + 1, refused)
        elif what == "closed" and open_:
            self.counts = Connections(opened, open_ - 1, refused)
        elif what == "refused":
            self.counts = Connections(opened, open_, refused + 1)
        elif what == "lost":
            self.session.link_lost(Code.RELAY_GONE, "cut", self.now)
        elif what == "restored" and self.session.link_deadline is not None:
            self.session.begin_attempt()
            self.session.link_restored(self.now)
        if what in ("opened", "closed", "refused"):
            self.session.tell_connections(self.counts.opened, self.counts.open, self.counts.refused, self.now)
        self.hear()


@given(STEPS)
def test_the_bridge_hears_seldom_and_at_last_the_newest_counts(steps: list[tuple[str, float]]) -> None:
    relay = Relay()
    for what, seconds in steps:
        relay.step(what)
        relay.run(seconds)
    relay.step("restored")
    relay.run(CONNECTIONS_INTERVAL)
    assert all(b[0] >= a[0] + CONNECTIONS_INTERVAL for a, b in itertools.pairwise(relay.told))
    assert all(a[1].opened <= b[1].opened for a, b in itertools.pairwise(relay.told))
    if relay.session.alive and relay.counts != Connections(0, 0, 0):
        assert relay.told[-1][1] == relay.counts
