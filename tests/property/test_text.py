"""Whatever somebody else writes, what is shown of it is one printable line of bounded length."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from emissary_lib.protocol.wire.text import clean, decode_clean

LIMIT = 40


@given(st.text(st.characters(exclude_categories=()), max_size=2 * LIMIT))
def test_any_text(text: str) -> None:
    left = clean(text, LIMIT)
    assert left.isprintable()
    assert len(left) <= LIMIT
    assert clean(left, LIMIT) == left


@given(st.binary(max_size=2 * LIMIT))
def test_any_bytes(data: bytes) -> None:
    left = decode_clean(data, LIMIT)
    assert left.isprintable()
    assert len(left) <= LIMIT
