"""HEALTH through the handlers: who is answered what, and that nothing is left of it."""

from __future__ import annotations

import logging

import pytest

from emissary_lib.bridge.limits import Limits
from emissary_lib.bridge.session import RecordState
from emissary_lib.protocol.auth.keys import Key, KeyRing
from emissary_lib.protocol.auth.macs import verify_server_mac
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.constants import MAX_PAYLOAD
from emissary_lib.protocol.targets.allow_list import AllowList
from emissary_lib.protocol.wire.frames import Frame, FrameType
from emissary_lib.protocol.wire.health import Healthy, Usage
from emissary_lib.protocol.wire.payloads import Ended, Reset
from functions.common.adapters.keys import EnvironmentKeys
from tests.helpers.events import DATE, DIALER, HOST, KEY, NONCE, load_event
from tests.unit.functions.bridge import Bridge, example_stream

QUESTION = bytes(range(8))
HEALTH = Frame(FrameType.HEALTH, generation=1, payload=QUESTION)


def ask(bridge: Bridge) -> Healthy:
    assert bridge.send(DIALER, HEALTH) == {"statusCode": 200}
    ((to, frame),) = bridge.link.take()
    assert (to, frame.type) == (DIALER, FrameType.HEALTHY)
    return Healthy.decode(frame.payload)


def test_a_dialer_is_told_version_keys_and_limits_and_can_check_who_says_so() -> None:
    bridge = Bridge()
    bridge.keys = EnvironmentKeys(KeyRing([KEY, Key(7, bytes(32))]))
    bridge.admit()
    answer = ask(bridge)
    assert answer.question == QUESTION
    assert (answer.server_version, answer.protocol_version) == ("0.1.0", 2)
    assert answer.key_ids == (1, 7)
    assert (answer.usage, answer.key_usage) == (Usage(), Usage())
    verify_server_mac(answer.proof, KEY, date=DATE, nonce=NONCE, host=HOST)


def test_no_relay_starts_and_the_session_ends_without_a_record(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    bridge = Bridge()
    bridge.admit()
    purge_at = bridge.session.purge_at
    caplog.clear()
    ask(bridge)
    assert bridge.session.state is RecordState.ENDED
    assert bridge.session.purge_at == purge_at, "only the nonce has to be kept"
    assert bridge.disconnect(load_event("disconnect_dialer")) == {"statusCode": 200}
    assert bridge.launcher.events == []
    assert bridge.link.posts == []
    assert caplog.records == []


def test_an_allow_list_that_cannot_be_read_is_told_to_whoever_asks() -> None:
    """Symptom: `emissary doctor` without a target said that all is well, and every dial failed."""
    bridge = Bridge()
    bridge.admit()
    assert ask(bridge).fault == ""
    bridge.allow, bridge.allow_fault = AllowList(), "EMISSARY_ALLOWED_PROXY_TARGETS: it is no list"
    assert ask(bridge).fault == bridge.allow_fault


def test_a_repeated_question_is_answered_again() -> None:
    bridge = Bridge()
    bridge.admit()
    assert ask(bridge) == ask(bridge)


def test_what_follows_a_question_is_ignored_up_to_the_longest_message() -> None:
    bridge = Bridge()
    bridge.admit()
    payload = QUESTION + bytes(MAX_PAYLOAD - len(QUESTION))
    bridge.send(DIALER, Frame(FrameType.HEALTH, generation=1, payload=payload))
    ((_, frame),) = bridge.link.take()
    assert Healthy.decode(frame.payload).question == QUESTION


def test_a_connection_that_has_asked_opens_no_session() -> None:
    bridge = Bridge()
    bridge.admit()
    ask(bridge)
    bridge.send_opening(0, example_stream())
    assert bridge.launcher.events == []
    ((to, frame),) = bridge.link.take()
    assert (to, frame.type) == (DIALER, FrameType.ENDED)
    assert Ended.decode(frame.payload).code is Code.OK


def test_an_open_session_goes_on() -> None:
    bridge = Bridge()
    bridge.open()
    ask(bridge)
    assert bridge.session.state is RecordState.OPEN


def test_it_tells_how_many_sessions_there_are_of_how_many() -> None:
    bridge = Bridge()
    bridge.limits = Limits(total=5, per_key=1)
    bridge.open()
    answer = ask(bridge)
    assert (answer.usage, answer.key_usage) == (Usage(1, 5), Usage(1, 1))
    assert (answer.usage.reached, answer.key_usage.reached) == (False, True)


def test_a_key_that_was_withdrawn_is_told_so() -> None:
    bridge = Bridge()
    bridge.admit()
    bridge.keys = EnvironmentKeys(KeyRing([Key(7, bytes(32))]))
    bridge.send(DIALER, HEALTH)
    ((_to, frame),) = bridge.link.take()
    assert frame.type == FrameType.RESET
    reset = Reset.decode(frame.payload)
    assert reset.code is Code.AUTHENTICATION_FAILED
    assert "the key was withdrawn" in reset.reason


def test_a_question_that_is_cut_short_is_refused() -> None:
    bridge = Bridge()
    bridge.admit()
    bridge.send(DIALER, Frame(FrameType.HEALTH, generation=1, payload=bytes(7)))
    ((_to, frame),) = bridge.link.take()
    assert Reset.decode(frame.payload) == Reset(Code.PROTOCOL_ERROR, "HEALTH: 7 bytes of payload, 8 needed")


def test_a_session_that_was_purged_is_unknown() -> None:
    bridge = Bridge()
    bridge.admit()
    bridge.store.sessions.clear()
    bridge.send(DIALER, HEALTH)
    ((_to, frame),) = bridge.link.take()
    assert Ended.decode(frame.payload).code is Code.UNKNOWN_SESSION
