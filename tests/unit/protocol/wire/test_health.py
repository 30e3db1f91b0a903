"""HEALTHY's payload (docs/protocol.md section 3.6)."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest

from emissary_lib.protocol.errors import FrameError
from emissary_lib.protocol.record import replace
from emissary_lib.protocol.wire.frames import FrameType
from emissary_lib.protocol.wire.health import Healthy, Usage
from emissary_lib.protocol.wire.payloads import MAX_REASON

VECTORS: dict[str, Any] = json.loads(
    (pathlib.Path(__file__).parents[3] / "vectors" / "frames.json").read_text()
)
PROOF = bytes(range(32))
HEALTHY = Healthy(b"question", PROOF, 2, Usage(3, 20), Usage(1, 5), (1, 4_294_967_295), "0.2.0")
GOLDEN = bytes.fromhex(
    "7175657374696f6e" + PROOF.hex() + "02"
    "00000003 00000014 00000001 00000005"
    "0002 00000001 ffffffff"
    "05 302e322e30"
)  # fmt: skip


def test_it_is_these_bytes() -> None:
    assert HEALTHY.encode() == GOLDEN
    assert Healthy.decode(GOLDEN) == HEALTHY


def test_cut_anywhere_it_is_refused() -> None:
    for cut in range(len(GOLDEN)):
        with pytest.raises(FrameError, match=f"HEALTHY: {cut} bytes of payload"):
            Healthy.decode(GOLDEN[:cut])


FAULT = "EMISSARY_ALLOWED_PROXY_TARGETS: no list"
TOLD = GOLDEN + bytes.fromhex("0027") + FAULT.encode()
MISCONFIGURED = replace(HEALTHY, fault=FAULT)


def test_what_is_wrong_with_the_settings_stands_behind_the_version() -> None:
    assert MISCONFIGURED.encode() == TOLD
    assert Healthy.decode(TOLD) == MISCONFIGURED


def test_the_vectors_are_these_answers() -> None:
    payloads = {
        vector["name"]: bytes.fromhex(vector["fields"]["payload"])
        for vector in VECTORS["frames"]
        if vector["fields"]["type"] == FrameType.HEALTHY
    }
    assert [Healthy.decode(payload) for payload in payloads.values()] == [HEALTHY, MISCONFIGURED]


def test_a_bridge_of_an_older_release_or_without_a_fault_says_nothing_of_one() -> None:
    assert Healthy.decode(GOLDEN).fault == ""
    assert Healthy.decode(GOLDEN + bytes(2)) == HEALTHY


def test_a_fault_that_is_cut_short_is_refused() -> None:
    for cut in range(len(GOLDEN) + 1, len(TOLD)):
        with pytest.raises(FrameError, match="the fault is cut short"):
            Healthy.decode(TOLD[:cut])


def test_a_long_fault_is_cut_as_any_reason_is() -> None:
    long = replace(HEALTHY, fault="f" * (MAX_REASON + 1))
    assert Healthy.decode(long.encode()).fault == "f" * MAX_REASON


def test_bytes_of_a_later_version_are_ignored() -> None:
    assert Healthy.decode(GOLDEN + bytes(2) + b"later") == HEALTHY
    assert Healthy.decode(TOLD + b"later") == MISCONFIGURED


def test_no_repr_shows_the_proof() -> None:
    assert "proof" not in repr(HEALTHY)


@pytest.mark.parametrize(
    ("usage", "reached"), [(Usage(), False), (Usage(4, 5), False), (Usage(5, 5), True), (Usage(6, 5), True)]
)
def test_a_limit_is_reached_when_nobody_else_gets_in(usage: Usage, reached: bool) -> None:
    assert usage.reached is reached


@pytest.mark.parametrize(
    ("version", "left"), [("v" * 300, "v" * 255), ("\N{LATIN SMALL LETTER E WITH ACUTE}" * 200, "\xe9" * 127)]
)
def test_a_long_version_is_cut_between_characters(version: str, left: str) -> None:
    long = Healthy(b"question", PROOF, 2, Usage(), Usage(), (), version)
    assert Healthy.decode(long.encode()).server_version == left
