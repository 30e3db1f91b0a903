"""When a command writes colours."""

from __future__ import annotations

import io
import os

import pytest

from emissary_lib.cli.doctor import run_doctor
from emissary_lib.cli.output import GREEN, in_colour, paint
from emissary_lib.client.settings import SettingsReader


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("environ", "terminal", "pipe"),
    [
        ({}, True, False),
        ({"TERM": "xterm"}, True, False),
        ({"TERM": "dumb"}, False, False),
        ({"NO_COLOR": "1"}, False, False),
        ({"NO_COLOR": ""}, True, False),
        ({"FORCE_COLOR": "1"}, True, True),
        ({"FORCE_COLOR": ""}, True, False),
        ({"FORCE_COLOR": "1", "TERM": "dumb"}, True, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False, False),
    ],
    ids=str,
)
def test_colours_are_for_terminals_unless_the_user_says_otherwise(
    environ: dict[str, str], terminal: bool, pipe: bool
) -> None:
    assert in_colour(Terminal(), environ) is terminal
    assert in_colour(io.StringIO(), environ) is pipe


def test_a_painted_text_ends_its_colour() -> None:
    assert paint("ok", GREEN) == "\x1b[32mok\x1b[0m"


@pytest.mark.parametrize(
    ("out", "coloured"), [(Terminal(), True), (io.StringIO(), False)], ids=["tty", "pipe"]
)
def test_the_doctor_s_status_is_red_on_a_terminal_where_a_check_failed(
    out: io.StringIO, coloured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    run_doctor(None, reader=SettingsReader({}, default_file=os.devnull), out=out)
    first = out.getvalue().splitlines()[0]
    assert first.startswith("\x1b[31mFAILED\x1b[0m " if coloured else "FAILED ")
    assert ("\x1b" in out.getvalue()) is coloured
