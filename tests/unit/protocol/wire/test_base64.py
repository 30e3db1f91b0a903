"""One text for each byte string, with padding and without, whoever does the work."""

from __future__ import annotations

import base64
import binascii
import sys

import pytest

from emissary_lib.protocol.wire.base64 import (
    Base64,
    EncodingError,
    accelerated,
    decode_strictly,
    decode_unpadded,
    encode_unpadded,
)
from tests.helpers.speedups import BASE64

# RFC 4648 section 10, without the padding.
RFC = {b"": "", b"f": "Zg", b"fo": "Zm8", b"foo": "Zm9v", b"foob": "Zm9vYg", b"fooba": "Zm9vYmE"}


@pytest.mark.parametrize("data", RFC)
def test_examples_of_the_rfc(data: bytes) -> None:
    assert encode_unpadded(data) == RFC[data]
    assert decode_unpadded(RFC[data]) == data


@pytest.mark.parametrize(
    "text", ["Zg==", "Zh", "Z", "Zm9v\n", "Zm 9v", "Zm9-", "Zm9_", "Zm9vé", "=", "====", "Zg=a", "Zm9vZ"]
)
def test_every_other_text_is_refused(text: str) -> None:
    with pytest.raises(EncodingError):
        decode_unpadded(text)


def test_the_error_does_not_show_the_text() -> None:
    with pytest.raises(EncodingError) as caught:
        decode_unpadded("c2VjcmV0!")
    assert "c2V" not in str(caught.value)
    assert caught.value.__suppress_context__


@BASE64
@pytest.mark.parametrize("size", [*range(10), 1_000, 94_500])
def test_padded_text_comes_back_as_the_bytes_it_was_made_of(codec: Base64, size: int) -> None:
    data = bytes(each * 7 % 256 for each in range(size))
    assert codec.encode(data) == base64.b64encode(data)
    assert decode_strictly(base64.b64encode(data), codec) == data


@BASE64
@pytest.mark.parametrize(
    "text",
    [
        "Zg", "Zg=", "Zg===", "Zg==\n", "Zh==", "Zm8", "Zm9=", "Zm8==", "Z===", "====", "=", "Z", "Zm9vZ",
        "Zm9v\n", "Zm 9v", "Zm9-", "Zm9_", "Zm9vé", "Zm9v\0", "Zg==Zm9v", "Zg=a", "Z=g=", "=Zg=", "\nZg=",
        "Zm9v Zg=", "Zm9v*Zg=", "*******Zm9v", "Zm9vZm9v====", "Zm9v\n\n\n\n",
    ],
)  # fmt: skip
def test_every_other_padded_text_is_refused(codec: Base64, text: str) -> None:
    with pytest.raises(EncodingError):
        decode_strictly(text.encode(), codec)


def test_without_the_package_python_s_own_is_the_fastest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pybase64", None)  # makes an import of it fail
    assert accelerated() is None


def test_a_decoder_that_lets_anything_pass_is_not_relied_on() -> None:
    """As binascii's of every Python is, unless it is asked to be strict, and then of some."""
    lenient = Base64(base64.b64encode, binascii.a2b_base64)
    assert decode_strictly(b"Zm9vZg==", lenient) == b"foof"
    for text in (b"Zm9v\nZg==", b"*m9vZg==", b"Zm9vZh==", b"Zm9vZg==Zm9v", b"Zm9v====", b"Zm9v!!!!"):
        with pytest.raises(EncodingError):
            decode_strictly(text, lenient)
