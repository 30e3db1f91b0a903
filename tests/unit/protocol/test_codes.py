"""The table of codes is docs/protocol.md section 8, word for word."""

from __future__ import annotations

import pathlib
import re

import pytest

from emissary_lib import exceptions
from emissary_lib.exceptions import dial_error, reset_error
from emissary_lib.exit_status import exit_status
from emissary_lib.protocol.codes import MEANINGS, Code, code_of
from emissary_lib.protocol.opening.socks5_messages import reply_for
from emissary_lib.protocol.targets.allow_list import Target

DOCUMENT = (pathlib.Path(__file__).parents[3] / "docs" / "protocol.md").read_text()
SECTION = DOCUMENT.partition("\n## 8. Codes\n")[2]
ROWS = re.findall(
    r"^\| (\d+) \| ([A-Z0-9_]+) \| (\d+|-) \| (\w+|-) \| (\w+|-) \| ([\d, ]+) \| (.+) \|$",
    SECTION,
    re.MULTILINE,
)
WITHOUT_CODE = re.findall(r"^\| (?:any other )?(\w+) \| (\d+) \|$", SECTION, re.MULTILINE)
TARGET = Target("db.internal", 5432)

#: From here on a code happens while dialling only.
DIALLING = 32


def test_the_table_was_found() -> None:
    assert len(ROWS) == 26


def test_numbers_and_names_are_the_documents() -> None:
    assert [(int(number), name) for number, name, *_rest in ROWS] == [
        (code.value, code.name) for code in Code
    ]


def test_meanings_are_the_documents() -> None:
    assert [row[-1] for row in ROWS] == [MEANINGS[code] for code in Code]


def test_socks5_replies_are_the_documents() -> None:
    wanted = {Code[name]: int(reply) for _number, name, reply, *_rest in ROWS if reply != "-"}
    assert {code: int(reply_for(code)) for code in wanted} == wanted
    assert set(Code) - set(wanted) == {Code.AUTHENTICATION_FAILED}


def test_a_number_reads_as_its_code_and_an_unknown_one_as_a_protocol_error() -> None:
    assert [code_of(code.value) for code in Code] == list(Code)
    assert {code_of(number) for number in (16, 31, 42, 65_535)} == {Code.PROTOCOL_ERROR}


@pytest.mark.parametrize(
    ("code", "dialling", "tunnel", "statuses"),
    [
        (Code[name], dial, tunnel, statuses)
        for _number, name, _reply, dial, tunnel, statuses, _meaning in ROWS
    ],
)
def test_what_is_raised_and_the_exit_status_are_the_documents(
    code: Code, dialling: str, tunnel: str, statuses: str
) -> None:
    if code is Code.OK:
        assert (dialling, tunnel, statuses) == ("-", "-", "0")
        return
    raised: list[Exception] = [dial_error(TARGET, code)]
    if code < DIALLING or code is Code.AUTHENTICATION_FAILED:
        raised.append(reset_error(TARGET, code, ""))
    named = [name for name in (dialling, tunnel) if name != "-"]
    assert [type(error).__name__ for error in raised] == named
    assert [int(exit_status(error)) for error in raised] == [int(each) for each in statuses.split(", ")]
    assert {error.code for error in raised if isinstance(error, exceptions.DialError)} <= {code}


def test_errors_without_a_code_have_the_documents_exit_statuses() -> None:
    found = {name: int(status) for name, status in WITHOUT_CODE}
    made: dict[str, BaseException] = {
        "ConfigError": exceptions.ConfigError("fault"),
        "AuthenticationError": exceptions.AuthenticationError("wrong"),
        "TransportError": exceptions.GatewayUnreachableError("no answer"),
        "DialTimeoutError": exceptions.DialTimeoutError("late", target=TARGET, timeout=1, step="the gateway"),
        "ListenError": exceptions.ListenError("in use"),
        "CommandError": exceptions.CommandError("no such file"),
        "OperationError": exceptions.OperationError("AWS refused"),
        "KeyboardInterrupt": KeyboardInterrupt(),
        "EmissaryError": exceptions.ClosedError("closed"),
    }
    assert found == {name: int(exit_status(error)) for name, error in made.items()}
    assert "| wrong usage, or a package that is not installed | 2 |" in SECTION
    assert int(exit_status(ModuleNotFoundError("aiohttp"))) == 2
