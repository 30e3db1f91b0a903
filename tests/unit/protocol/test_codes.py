"""The table of codes is docs/protocol.md section 8, word for word."""

from __future__ import annotations

import pathlib
import re

from emissary_lib.protocol.codes import MEANINGS, Code, code_of
from emissary_lib.protocol.socks5_messages import reply_for

DOCUMENT = (pathlib.Path(__file__).parents[3] / "docs" / "protocol.md").read_text()
SECTION = DOCUMENT.partition("\n## 8. Codes\n")[2]
ROWS = re.findall(r"^\| (\d+) \| ([A-Z0-9_]+) \| (\d+|-) \| (.+) \|$", SECTION, re.MULTILINE)


def test_the_table_was_found() -> None:
    assert len(ROWS) == 24


def test_numbers_and_names_are_the_documents() -> None:
    assert [(int(number), name) for number, name, _reply, _meaning in ROWS] == [
        (code.value, code.name) for code in Code
    ]


def test_meanings_are_the_documents() -> None:
    assert [meaning for _number, _name, _reply, meaning in ROWS] == [MEANINGS[code] for code in Code]


def test_socks5_replies_are_the_documents() -> None:
    wanted = {Code[name]: int(reply) for _number, name, reply, _meaning in ROWS if reply != "-"}
    assert {code: int(reply_for(code)) for code in wanted} == wanted
    assert set(Code) - set(wanted) == {Code.AUTHENTICATION_FAILED}


def test_a_number_reads_as_its_code_and_an_unknown_one_as_a_protocol_error() -> None:
    assert [code_of(code.value) for code in Code] == list(Code)
    assert {code_of(number) for number in (15, 31, 41, 65_535)} == {Code.PROTOCOL_ERROR}
