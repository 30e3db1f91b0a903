"""The codes; docs/protocol.md section 8 is generated from them."""

from __future__ import annotations

from emissary_lib.protocol.codes import MEANINGS, Code, code_of


def test_every_code_has_a_meaning() -> None:
    assert list(MEANINGS) == list(Code)


def test_a_number_reads_as_its_code_and_an_unknown_one_as_a_protocol_error() -> None:
    assert [code_of(code.value) for code in Code] == list(Code)
    assert {code_of(number) for number in (16, 31, 43, 65_535)} == {Code.PROTOCOL_ERROR}
