"""unpadded: one text for each byte string."""

from __future__ import annotations

import pytest

from emissary_lib.protocol.wire.base64 import EncodingError, decode_unpadded, encode_unpadded

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
