"""How a relay claims its session, with bridge and dialer played by hand."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

import pytest

from emissary_lib.exceptions import AnswerLostError, GatewayRefusedError
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.record import replace
from emissary_lib.protocol.targets.allow_list import Target
from emissary_lib.protocol.wire.frames import FrameType
from emissary_lib.protocol.wire.payloads import Resumed
from emissary_lib.transport.base import MessageTransport
from emissary_lib.transport.deadline import Deadline
from functions.relay.connector import Connected
from tests.helpers.patience import HANG
from tests.unit.functions.relay.harness import RelayHarness, example_launch

#: RFC 1928 section 6: version 5, success, reserved, IPv4, 10.0.0.7, port 5432.
SUCCESS = bytes.fromhex("05 00 00 01 0a 00 00 07 15 38")


def refused(status: int) -> GatewayRefusedError:
    return GatewayRefusedError(f"HTTP status {status}", http_status=status)


def test_relay_launched_too_late_does_not_begin() -> None:
    launch = replace(example_launch(), expires=time.time() - 1)
    with RelayHarness(launch=launch) as harness:
        assert harness.result() is None
        assert harness.claims == []


@pytest.mark.parametrize("status", [403, 409])
def test_relay_refused_for_good_exits_and_closes_the_target_connection(status: int) -> None:
    def refuse(headers: Mapping[str, str]) -> MessageTransport:
        raise refused(status)

    with RelayHarness(dial_back=refuse) as harness:
        assert harness.result() is None
        assert harness.target.recv(1) == b""
        assert len(harness.claims) == 1
        assert harness.poster.posted.empty()


def test_relay_that_does_not_get_the_session_leaves_no_connection_under_way() -> None:
    # A connection that is there only after serve returned would stay open in a frozen environment.
    claimed = threading.Event()

    def taken(headers: Mapping[str, str]) -> MessageTransport:
        claimed.set()
        raise refused(409)

    worlds: list[RelayHarness] = []

    def slow(target: Target, deadline: Deadline) -> Connected:
        assert claimed.wait(HANG)
        threading.Event().wait(0.1)  # longer than the relay needs to give up
        return Connected(Code.OK, worlds[0].near)

    harness = RelayHarness(dial_back=taken, connect=slow)
    worlds.append(harness)
    with harness:
        assert harness.result() is None
        assert harness.near.fileno() == -1


def test_throttled_relay_dials_back_again_with_the_next_epoch() -> None:
    # docs/protocol.md section 5: each attempt counts, whether or not its answer arrived. The first one may
    # have claimed the session, and then an equal epoch would get a 409.
    answers = [refused(429), refused(503)]
    worlds: list[RelayHarness] = []

    def answer(headers: Mapping[str, str]) -> MessageTransport:
        if answers:
            raise answers.pop(0)
        return worlds[0].transport

    harness = RelayHarness(dial_back=answer)
    worlds.append(harness)
    with harness:
        frame, _parameters, _data = harness.wait_for_opened()
        assert [claim["X-Emissary-Epoch"] for claim in harness.claims] == ["1", "2", "3"]
        assert len({claim["X-Emissary-Instance"] for claim in harness.claims}) == 1
        assert frame.generation == 1 + 3  # the dialer's epoch and the relay's


def test_claim_that_was_not_the_first_attempt_is_followed_by_resume() -> None:
    # The first attempt may have claimed the session and lost its 101: then the bridge has to close that
    # connection, and to tell the dialer, who may have heard of its end, which one counts.
    lost = [AnswerLostError("the 101 was lost")]
    worlds: list[RelayHarness] = []

    def answer(headers: Mapping[str, str]) -> MessageTransport:
        if lost:
            raise lost.pop()
        return worlds[0].transport

    harness = RelayHarness(dial_back=answer)
    worlds.append(harness)
    with harness:
        asked = harness.transport.sent.get(timeout=HANG)
        assert (asked.type, asked.generation) == (FrameType.RESUME, 1 + 2)
        assert asked.ack == harness.launch.client_offset
        frame, _parameters, data = harness.wait_for_opened()  # which does not wait for the answer
        assert (frame.generation, data) == (3, harness.launch.server_bytes + SUCCESS)
        harness.say(FrameType.RESUMED, Resumed(1, 2, harness.launch.dialer_connection, "relay=").encode())
        assert harness.next_post(FrameType.ACK, FrameType.OPENED).generation == 3


def test_claim_at_the_first_attempt_costs_the_bridge_no_message() -> None:
    with RelayHarness() as harness:
        _frame, _parameters, data = harness.wait_for_opened()
        harness.target_closes()
        harness.next_fin()
        harness.hang_up(ack=len(data) + 1)
        harness.wait_for_end()  # END is the first message to the bridge
        assert harness.result() is Code.OK


@pytest.mark.parametrize(("left", "patience"), [(1000.0, 30.0), (28.0, 28.0)])
def test_dial_back_is_waited_for_until_the_gateway_must_have_answered(left: float, patience: float) -> None:
    # API Gateway answers within 29 s. A relay that gave up after 10 s could be granted the session at 11 s,
    # and the dial failed because "the relay's WebSocket went away".
    launch = replace(example_launch(), expires=time.time() + left)
    with RelayHarness(launch=launch) as harness:
        harness.wait_for_opened()
        (waited,) = harness.patience
        assert waited is not None
        assert patience / 2 < waited <= patience


def test_each_invocation_claims_as_another_instance() -> None:
    instances = set()
    for _ in range(2):
        with RelayHarness() as harness:
            harness.wait_for_opened()
            instances.add(harness.claims[0]["X-Emissary-Instance"])
    assert len(instances) == 2
