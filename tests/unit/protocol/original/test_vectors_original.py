"""tests/vectors/original.json: checked by hmac and hashlib alone, then against the program."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import pathlib
import struct
from typing import Any

import pytest

from emissary_lib.protocol.auth.keys import Key
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.original.frames import (
    Close,
    Event,
    FrameReader,
    Payload,
    Pong,
    encode_close,
    encode_frame,
)
from emissary_lib.protocol.original.opening import OriginalOpening
from emissary_lib.protocol.targets.allow_list import Target
from emissary_lib.protocol.wire.websocket import Opcode

VECTORS = pathlib.Path(__file__).resolve().parents[3] / "vectors"
V: dict[str, Any] = json.loads((VECTORS / "original.json").read_text())

SECRET, NONCE, MASK = (bytes.fromhex(V[name]) for name in ("secret", "nonce", "mask"))
BANNER = bytes.fromhex(V["banner"]["bytes"])
OPENING = bytes.fromhex(V["greeting"] + V["credentials"] + V["connect"])


def read(*frames: str) -> list[Event]:
    reader = FrameReader()
    return [event for frame in frames for event in reader.receive(bytes.fromhex(frame))]


def begin() -> OriginalOpening:
    return OriginalOpening(Key(V["kid"], SECRET), V["date"], Target(*V["target"]))


def test_the_signature_is_the_original_s() -> None:
    nonce = base64.b64encode(NONCE).rstrip(b"=").decode()
    assert V["content"] == f"{V['date']}\\0{nonce}"
    mac = hmac.new(SECRET, f"{V['date']}\0{nonce}".encode(), hashlib.sha256).digest()
    signed = base64.b64encode(struct.pack(">I", V["kid"]) + mac).rstrip(b"=").decode()
    assert V["password"] == signed
    date = V["date"].encode()
    parts = (b"\x01", bytes([len(date)]), date, bytes([len(signed)]), signed.encode())
    assert V["credentials"] == b"".join(parts).hex()


def test_the_banner_is_read_and_answered() -> None:
    opening = begin()
    (payload,) = read(V["banner"]["frame"])
    assert payload == Payload(BANNER, True)
    opening.receive(Payload(BANNER, True))
    assert opening.banner
    assert opening.banner.server_software == V["banner"]["software"]
    assert opening.banner.server_version == V["banner"]["version"]
    assert opening.banner.protocol_version == V["banner"]["protocol_version"]
    assert opening.banner.nonce == NONCE
    out = opening.data_to_send()
    assert out == OPENING
    assert encode_frame(Opcode.BINARY, out, MASK).hex() == V["opening_frame"]


def test_an_opening_is_accepted() -> None:
    opening = begin()
    opening.receive(Payload(BANNER, True))
    for name in ("method", "status", "reply"):
        assert not opening.done
        opening.receive(Payload(bytes.fromhex(V["accepted"][name]), True))
    assert opening.accepted


@pytest.mark.parametrize("case", V["refused"], ids=lambda case: case["name"])
def test_an_opening_is_refused(case: dict[str, Any]) -> None:
    opening = begin()
    opening.receive(Payload(BANNER, True))
    for answer in case["answers"]:
        assert not opening.done
        opening.receive(Payload(bytes.fromhex(answer), True))
    assert opening.refused
    assert opening.code is Code[case["code"]]


def test_frames_of_the_dialer() -> None:
    data = bytes.fromhex(V["data_frame"]["bytes"])
    assert encode_frame(Opcode.BINARY, data, MASK).hex() == V["data_frame"]["frame"]
    ping = struct.pack(">Q", V["ping_frame"]["sent"])
    assert encode_frame(Opcode.PING, ping, MASK).hex() == V["ping_frame"]["frame"]
    assert encode_close(1000, MASK).hex() == V["close_frame"]


def test_frames_of_the_server() -> None:
    assert read(V["pong_frame"]) == [Pong(struct.pack(">Q", V["ping_frame"]["sent"]))]
    assert read(V["server_close_answer"]) == [Close(1000, "")]
    assert read(V["server_close_own"]) == [Close(1000, "encore")]
