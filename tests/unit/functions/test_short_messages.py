"""The stack remembers that long messages do not pass (docs/protocol.md rule 4.8-7)."""

from __future__ import annotations

import logging

import pytest

from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.wire.frames import Flag, Frame, FrameType
from emissary_lib.protocol.wire.payloads import End
from functions.common import logs
from functions.common.short_messages import ASKED_EVERY, REMEMBERED, ShortMessages
from tests.helpers.events import DIALER, NOW, RELAY, SESSION
from tests.helpers.fakes import FakeClock, FakeStore
from tests.unit.functions.bridge import Bridge, example_stream


def end(flags: int = 0) -> Frame:
    return Frame(FrameType.END, flags, generation=2, payload=End(Code.OK, 1, 1).encode())


@pytest.mark.parametrize(
    ("sender", "flags", "known"),
    [(RELAY, Flag.SHORT, True), (RELAY, 0, False), (DIALER, Flag.SHORT, False)],
    ids=["a relay found out", "nobody did", "a dialer says so"],
)
def test_what_a_relay_found_out_the_next_relay_knows(sender: str, flags: int, known: bool) -> None:
    bridge = Bridge()
    bridge.open()
    bridge.send(sender, end(int(flags)))
    assert bridge.store.short_messages(NOW) is known
    after = Bridge()
    after.store.short_until = bridge.store.short_until
    after.launch()
    assert after.launcher.events[0]["short"] is known


@pytest.mark.parametrize("flags", [0, Flag.SHORT], ids=["a dialer that knows nothing", "one that remembers"])
def test_what_a_dialer_remembers_its_own_relay_begins_with_and_the_stack_forgets_in_time(flags: int) -> None:
    bridge = Bridge()
    bridge.admit()
    opening = Frame(FrameType.OPENING, int(flags), generation=1, window=65_536, payload=example_stream())
    assert bridge.send(DIALER, opening) == {"statusCode": 200}
    (event,) = bridge.launcher.events
    assert event["short"] is bool(flags)
    assert not bridge.store.short_messages(NOW)


def test_it_is_found_out_anew_after_a_day() -> None:
    store, clock = FakeStore(), FakeClock(NOW)
    ShortMessages(store, clock).note()
    clock.now += REMEMBERED - 1
    ShortMessages(store, clock).note()  # which does not make it longer
    assert ShortMessages(store, clock).known()
    clock.now += 1
    assert not ShortMessages(store, clock).known()


def test_the_log_has_the_session_that_found_it_out_once(caplog: pytest.LogCaptureFixture) -> None:
    bridge = Bridge()
    bridge.open()
    with caplog.at_level(logging.WARNING, logger=logs.NAME):
        for _ in range(2):
            bridge.send(RELAY, end(Flag.SHORT))
    told = [r for r in caplog.records if r.getMessage() == "long messages do not pass"]
    assert [record.__dict__["session"] for record in told] == [SESSION]


def test_an_environment_asks_once_a_minute() -> None:
    store, clock = FakeStore(), FakeClock(NOW)
    asks = ShortMessages(store, clock)
    ShortMessages(store, clock).note()
    before = store.reads
    seen = [asks.known() for _ in range(3)]
    assert (seen, store.reads) == ([True] * 3, before + 1)
    clock.now += ASKED_EVERY
    assert asks.known()
    assert store.reads == before + 2
