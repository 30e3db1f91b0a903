"""varint: protobuf's numbers, whole and cut."""

from __future__ import annotations

import pytest

from emissary_lib.protocol.errors import LocalProtocolError, RemoteProtocolError
from emissary_lib.protocol.wire.varint import decode_varint, encode_varint

# 150 and 1 are the examples of protobuf.dev, "Encoding"; the rest follow from its rule.
EXAMPLES = {
    0: "00",
    1: "01",
    127: "7f",
    128: "8001",
    150: "9601",
    16384: "808001",
    (1 << 64) - 1: "ffffffffffffffffff01",
}


@pytest.mark.parametrize("number", EXAMPLES)
def test_examples_whole_cut_and_with_more_behind(number: int) -> None:
    data = bytes.fromhex(EXAMPLES[number])
    assert encode_varint(number) == data
    for cut in range(len(data)):
        assert decode_varint(data[:cut]) is None
    assert decode_varint(data + b"\xff") == (number, len(data))
    assert decode_varint(b"\xff" + data, 1) == (number, len(data) + 1)


def test_a_longer_form_is_accepted() -> None:
    assert decode_varint(b"\x81\x80\x00") == (1, 3)


@pytest.mark.parametrize("data", ["ffffffffffffffffff02", "ff" * 10, "80" * 11])
def test_more_than_64_bits_are_refused(data: str) -> None:
    with pytest.raises(RemoteProtocolError, match="64 bits"):
        decode_varint(bytes.fromhex(data))


@pytest.mark.parametrize("number", [-1, 1 << 64])
def test_what_does_not_fit_is_the_callers_error(number: int) -> None:
    with pytest.raises(LocalProtocolError, match="64-bit"):
        encode_varint(number)
