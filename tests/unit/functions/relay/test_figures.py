"""What a relay tells CloudWatch."""

from __future__ import annotations

import queue
import time
from collections.abc import Mapping

from emissary_lib.exceptions import GatewayRefusedError
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.record import replace
from emissary_lib.transport.base import MessageTransport
from functions.common.errors import PeerBusyError
from functions.relay.app import lambda_handler
from functions.relay.connector import Connected
from tests.helpers.events import load_event
from tests.unit.functions.conftest import Figures
from tests.unit.functions.relay.harness import RelayHarness, example_launch
from tests.unit.functions.relay.test_app import Context


def test_a_session_that_is_opened_is_one_line_with_the_time_since_the_door(figures: Figures) -> None:
    # It was let in 3 s ago.
    launch = replace(example_launch(), expires=time.time() + 57)
    with RelayHarness(launch=launch) as harness:
        harness.wait_for_opened()
    (line,) = figures.lines
    assert set(line) == {"SessionOpened", "DialMilliseconds"}
    assert line["SessionOpened"] == 1
    assert 3000 <= line["DialMilliseconds"] < 8000


def test_a_target_that_is_not_reached_opens_no_session(figures: Figures) -> None:
    with RelayHarness(connect=lambda target, deadline: Connected(Code.TARGET_REFUSED)) as harness:
        harness.wait_for_opened()
    assert figures.lines == []


def test_a_relay_that_comes_too_late_is_an_error(figures: Figures) -> None:
    with RelayHarness(launch=replace(example_launch(), expires=time.time() - 1)) as harness:
        harness.result()
    assert figures.lines == [{"RelayError": 1}]


def test_a_relay_that_cannot_dial_back_is_an_error_but_not_one_whose_session_is_taken(
    figures: Figures,
) -> None:
    def refused(status: int) -> RelayHarness:
        def answer(headers: Mapping[str, str]) -> MessageTransport:
            raise GatewayRefusedError("no", http_status=status)

        return RelayHarness(dial_back=answer)

    with refused(409) as harness:
        harness.result()
    assert figures.lines == []
    with refused(403) as harness:
        harness.result()
    assert figures.lines == [{"RelayError": 1}]


def test_an_event_that_cannot_be_used_is_an_error(figures: Figures) -> None:
    lambda_handler({**load_event("relay_start"), "version": 1}, Context())
    assert figures.lines == [{"RelayError": 1}]


def test_throttled_posts_are_one_line_at_the_end(figures: Figures) -> None:
    with RelayHarness() as harness:
        refusals = queue.SimpleQueue[Exception]()
        refusals.put(PeerBusyError("429"))
        harness.poster.raises = lambda: None if refusals.empty() else refusals.get()
        _frame, _parameters, data = harness.wait_for_opened()
        harness.acknowledge(len(data))
        assert figures.total("PeerThrottled") == 0
        harness.target_closes()
        harness.next_fin()
        harness.hang_up(len(data) + 1)
        harness.wait_for_end()
        harness.result()
    assert figures.lines[-1] == {"PeerThrottled": 1}
