"""Text that somebody else has written, made harmless to show."""

from __future__ import annotations

import pytest

from emissary_lib.protocol.wire.text import MAX_TEXT, clean, decode_clean


@pytest.mark.parametrize("text", ["", "müde", "数据库", "emoji 🐘", "a b"])
def test_an_honest_text_stays(text: str) -> None:
    assert clean(text) == text
    assert decode_clean(text.encode()) == text


@pytest.mark.parametrize(
    "character",
    ["\0", "\a", "\b", "\t", "\n", "\r", "\x1b", "\x7f", "\x85", "\x9b", "\u2028", "\u2029", "\u202e",
     "\u2066", "\u200f", "\u061c", "\ufeff", "\ud800"],
)  # fmt: skip
def test_what_moves_a_cursor_or_turns_a_line_becomes_a_space(character: str) -> None:
    assert clean(f"a{character}b{character}") == "a b"


def test_a_long_text_is_cut() -> None:
    assert clean("x" * 5000) == "x" * MAX_TEXT
    assert clean("abcd", 3) == "abc"
    assert decode_clean(b"abcd", 3) == "abc"


def test_bytes_that_are_no_text_are_replaced() -> None:
    assert decode_clean(b"a\xff") == "a\N{REPLACEMENT CHARACTER}"
