"""The byte-exact examples in tests/vectors/mux.json: each is sent so, where it is ours, and read so."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest

from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.errors import RemoteProtocolError
from emissary_lib.protocol.mux.answers import Position, answer_headers
from emissary_lib.protocol.mux.dialer import DialerMultiplexer
from emissary_lib.protocol.mux.events import CutOff, Declined, Draining, Opened, Readable, Refused, Requested
from emissary_lib.protocol.mux.limits import SHARED_TARGET, MuxLimits
from emissary_lib.protocol.mux.multiplexer import Multiplexer
from emissary_lib.protocol.mux.relay import RelayMultiplexer
from emissary_lib.protocol.opening.socks5_messages import connect
from emissary_lib.protocol.targets.allow_list import Target
from emissary_lib.protocol.wire.frames import Flag, Frame, FrameType, decode, encode
from emissary_lib.protocol.wire.payloads import (
    CAPABILITY_SHARED,
    Connections,
)
from emissary_lib.protocol.wire.payloads import (
    Opened as Parameters,
)
from tests.helpers.mux_pair import NOW, TARGET, MuxPair, drain_events, frame

VECTORS: dict[str, Any] = json.loads(
    (pathlib.Path(__file__).resolve().parents[3] / "vectors" / "mux.json").read_text()
)
BEGINS = {name: bytes.fromhex(text) for name, text in VECTORS["begins"].items()}


def raw(case: Any, key: str = "bytes") -> bytes:
    return bytes.fromhex(case[key])


def by_name(cases: list[dict[str, Any]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=[case.get("name", case.get("code")) for case in cases])


def begun(role: str) -> Multiplexer:
    """One side of two that have begun; the dialer has asked for stream 1, the relay has accepted it."""
    pair = MuxPair()
    pair.connect()
    return pair.dialer if role == "dialer" else pair.relay


@pytest.fixture
def asked() -> DialerMultiplexer:
    """A dialer that waits for the answer to stream 1."""
    dialer = DialerMultiplexer(MuxLimits(), NOW)
    dialer.open(TARGET)
    dialer.receive(BEGINS["relay"], NOW)
    dialer.data_to_send(1 << 20)
    return dialer


def test_the_reserved_name_is_a_connect_request_of_socks5() -> None:
    name = VECTORS["reserved_name"]
    assert Target(name["host"], name["port"]) == SHARED_TARGET
    assert connect(SHARED_TARGET) == raw(name, "connect")


def test_opened_says_that_the_session_is_shared() -> None:
    parameters, rest = Parameters.decode(raw(VECTORS["opened"]) + b"stream")
    assert (parameters.code, parameters.capabilities, rest) == (Code.OK, CAPABILITY_SHARED, b"stream")
    assert parameters.encode() == raw(VECTORS["opened"])


def test_each_side_begins_with_these_bytes() -> None:
    dialer, relay = DialerMultiplexer(MuxLimits(), NOW), RelayMultiplexer(MuxLimits(), NOW)
    assert dialer.data_to_send(1 << 20) == BEGINS["dialer"]
    assert relay.data_to_send(1 << 20) == BEGINS["relay"]
    for side, begins in ((dialer, BEGINS["relay"]), (relay, BEGINS["dialer"])):
        side.receive(begins, NOW)
        assert side.data_to_send(1 << 20) == bytes.fromhex(VECTORS["settings_acknowledged"])


@by_name(VECTORS["requests"])
def test_a_request(case: dict[str, Any]) -> None:
    relay = RelayMultiplexer(MuxLimits(), NOW)
    for byte in BEGINS["dialer"] + raw(case):
        relay.receive(bytes([byte]), NOW)
    target = case["target"]
    expected = [Requested(case["stream"], Target.parse(target))] if target else []
    assert drain_events(relay) == expected
    assert relay.refused == (0 if target else 1)


def test_a_request_is_a_connect_with_the_target_as_authority() -> None:
    """Its compression is the library's: it is read by the other side, which reads the vectors too."""
    for case in VECTORS["requests"]:
        if case["target"]:
            dialer, relay = DialerMultiplexer(MuxLimits(), NOW), RelayMultiplexer(MuxLimits(), NOW)
            dialer.open(Target.parse(case["target"]))
            relay.receive(dialer.data_to_send(1 << 20), NOW)
            assert drain_events(relay) == [Requested(1, Target.parse(case["target"]))]


@by_name(VECTORS["answers"])
def test_an_answer(case: dict[str, Any], asked: DialerMultiplexer) -> None:
    code = Code[case["code"]]
    asked.receive(raw(case), NOW)
    assert drain_events(asked) == [Opened(1) if code is Code.OK else Refused(1, code)]
    assert answer_headers(code)[0] == (":status", case["status"])


def test_every_code_of_the_table_has_a_vector() -> None:
    assert {case["code"] for case in VECTORS["answers"]} >= {code.name for code in Code if 32 <= code <= 37}


def test_a_request_is_declined(asked: DialerMultiplexer) -> None:
    asked.receive(raw(VECTORS, "declined"), NOW)
    assert drain_events(asked) == [Declined(1)]


def test_a_relay_drains() -> None:
    pair = MuxPair()
    pair.pass_on()
    pair.relay.drain()
    sent = pair.relay.data_to_send(1 << 20)
    assert sent == raw(VECTORS, "drains")
    pair.dialer.receive(sent, NOW)
    assert drain_events(pair.dialer) == [Draining()]


@pytest.mark.parametrize("role", ["dialer", "relay"])
def test_data_and_end(role: str) -> None:
    content = raw(VECTORS["data"], "content")
    sender = begun(role)
    sender.send_data(1, content)
    assert sender.data_to_send(1 << 20) == raw(VECTORS["data"])
    sender.send_data(1, content)
    sender.send_eof(1)
    assert sender.data_to_send(1 << 20) == raw(VECTORS["data"], "with_end")
    receiver = begun(role)
    receiver.receive(raw(VECTORS["data"]) + raw(VECTORS["data"], "end"), NOW)
    assert drain_events(receiver) == [Readable(1), Readable(1)]
    assert receiver.peek(1, 100) == content


@by_name(VECTORS["positions"])
def test_a_position(case: dict[str, Any]) -> None:
    position = Position(case["written"], case["taken"], Code[case["code"]])
    assert position.encode(case["stream"]) == raw(case)
    assert Position.decode(raw(case)[9:]) == position


@pytest.mark.parametrize("role", ["dialer", "relay"])
@by_name(VECTORS["cuts"])
def test_a_cut(case: dict[str, Any], role: str) -> None:
    sender, receiver = begun(role), begun(role)
    sender.reset(1, Code[case["code"]])
    assert sender.data_to_send(1 << 20) == raw(case)
    receiver.receive(raw(case), NOW)
    assert drain_events(receiver) == [CutOff(1, Code[case["code"]], whole=False, lost=0)]


@by_name(VECTORS["refused"])
def test_what_ends_the_session(case: dict[str, Any]) -> None:
    for role in case["by"]:
        side = begun(role)
        if case["name"] == "a status 100":
            side = DialerMultiplexer(MuxLimits(), NOW)
            side.open(TARGET)
            side.receive(BEGINS["relay"], NOW)
        with pytest.raises(RemoteProtocolError) as caught:
            side.receive(raw(case), NOW)
        assert caught.value.code.name == case["code"]


@pytest.mark.parametrize("role", ["dialer", "relay"])
@by_name(VECTORS["ignored"])
def test_what_is_ignored(case: dict[str, Any], role: str) -> None:
    side = begun(role)
    side.receive(raw(case), NOW)
    assert drain_events(side) == []


def test_the_message_of_counts() -> None:
    case = VECTORS["connections"]
    counts = Connections(case["opened"], case["open"], case["refused"])
    assert counts.encode() == raw(case, "payload")
    message = Frame(FrameType.CONNECTIONS, Flag.IGNORABLE, 2, payload=raw(case, "payload"))
    assert decode(encode(message)) == message
    header = bytes([2 << 5 | FrameType.CONNECTIONS, Flag.IGNORABLE]) + (2).to_bytes(2, "big") + bytes(20)
    assert header + raw(case, "payload") == raw(case, "message")


def test_the_vectors_frames_have_the_length_that_they_tell() -> None:
    """By themselves, so that a slip in a vector is none of the program's."""
    lists = ("requests", "answers", "positions", "cuts", "refused", "ignored")
    for case in [case for name in lists for case in VECTORS[name]]:
        data = raw(case)
        while data and case["name" if "name" in case else "code"] != "a frame of 16,385 bytes":
            size = int.from_bytes(data[:3], "big")
            assert (
                frame(data[3], data[4], int.from_bytes(data[5:9], "big"), data[9 : 9 + size])
                == data[: 9 + size]
            )
            data = data[9 + size :]
