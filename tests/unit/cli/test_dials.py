"""The line that says what a dial waits for."""

from __future__ import annotations

import io
import logging
import os

import pytest

from emissary_lib.cli.dialling import show_warnings
from emissary_lib.cli.dials import LiveLine, columns_of, show_dials
from emissary_lib.client.progress import Progress
from emissary_lib.protocol.targets.allow_list import Target
from tests.helpers.clock import Clock


class Terminal(io.StringIO):
    """What a terminal shows: one column for each character, and a line for each that was ended."""

    def isatty(self) -> bool:
        return True

    @property
    def screen(self) -> list[str]:
        lines = [""]
        column = 0
        for character in self.getvalue():
            if character == "\n":
                lines.append("")
                column = 0
            elif character == "\r":
                column = 0
            else:
                lines[-1] = lines[-1][:column] + character + lines[-1][column + 1 :]
                column += 1
        return [line.rstrip() for line in lines]


class Dialling:
    """A dial whose time a test tells."""

    def __init__(self, target: str = "db:5432") -> None:
        self.clock = Clock()
        self.progress = Progress(Target.parse(target), clock=lambda: self.clock.now)
        self.progress.enter("relay")

    def takes(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.progress.look(None)


def test_a_dial_that_takes_long_has_a_line_until_it_is_over() -> None:
    err = Terminal()
    with show_warnings(err):
        dial = Dialling()
        dial.takes(1.9)
        assert err.screen == [""]
        dial.takes(0.2)
        assert err.screen == ["emissary: dialling db:5432 for 2 s (relay)"]  # what 80 columns have room for
        dial.takes(3.0)
        assert err.screen == ["emissary: dialling db:5432 for 5 s (relay)"]
        dial.progress.end()
        assert err.screen == [""]


def test_the_line_makes_room_for_a_warning_and_goes_when_the_dial_has_failed() -> None:
    err = Terminal()
    with show_warnings(err):
        dial = Dialling()
        dial.takes(2.0)
        logging.getLogger("emissary_lib.forward").warning("a forwarded connection failed")
        assert err.screen[0] == "emissary: a forwarded connection failed"
        assert err.screen[1].startswith("emissary: dialling db:5432")
        dial.progress.end(TimeoutError())
        assert err.screen == ["emissary: a forwarded connection failed", ""]


def test_several_dials_share_the_line() -> None:
    err = Terminal()
    with show_warnings(err):
        one, other = Dialling("one:1"), Dialling("other:2")
        one.takes(2.0)
        other.takes(2.0)
        assert err.screen[0].startswith("emissary: [2 dials] dialling other:2 for")
        other.progress.end()
        assert err.screen[0].startswith("emissary: dialling one:1 for")
        one.progress.end()
        assert err.screen == [""]


def test_a_command_that_ends_in_the_middle_takes_its_line_away() -> None:
    err = Terminal()

    def command() -> None:
        with show_warnings(err):
            Dialling().takes(2.0)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        command()
    assert err.screen == [""]
    Dialling().takes(2.0)
    assert err.screen == [""]


def test_where_nobody_looks_there_is_no_line() -> None:
    err = io.StringIO()
    with show_warnings(err):
        dial = Dialling()
        dial.takes(2.0)
        dial.progress.end()
    assert err.getvalue() == ""


STILL = "emissary: still dialling db.internal:5432 after 2.0 s: waiting for the relay to start and to "
LONG = f"{STILL}reach the target"


@pytest.mark.parametrize(
    ("columns", "shown"),
    [
        (200, f"{LONG} (relay 2.0 s)"),
        (120, LONG),
        (80, "emissary: dialling db.internal:5432 for 2 s (relay)"),
        (50, "emissary: dialling db.internal:5432 for 2 s"),
        (40, "emissary: dialling db.internal:5432 for"),
        (20, "emissary: dialling"),
        (6, "emiss"),
    ],
)
def test_a_dial_is_told_in_the_words_that_the_terminal_has_room_for(columns: int, shown: str) -> None:
    """Symptom: at 80 columns the line ended in the middle of a sentence, before what was waited for."""
    err = Terminal()
    with show_dials(LiveLine(err, lambda: columns).show):
        Dialling("db.internal:5432").takes(2.0)
        assert err.screen == [shown]


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="no terminals")
def test_the_width_is_that_of_the_terminal_that_is_written_to() -> None:
    """Symptom: with standard output in a file, a line on standard error was made for 80 columns."""
    termios = pytest.importorskip("termios")
    master, slave = os.openpty()
    with open(master, "rb", buffering=0), open(slave, "w") as terminal:
        termios.tcsetwinsize(slave, (24, 132))
        assert columns_of(terminal) == 132
        LiveLine(terminal).show("x" * 200)
        assert os.read(master, 1024) == b"\r\r" + b"x" * 131


def test_a_line_that_does_not_fit_is_cut_off() -> None:
    err = Terminal()
    line = LiveLine(err, lambda: 20)
    line.show("x" * 50)
    assert err.screen == ["x" * 19]
    line.show("y")
    assert err.screen == ["y"]


def test_a_terminal_that_has_gone_is_no_error() -> None:
    err = Terminal()
    line = LiveLine(err)
    err.close()
    line.show("anything")
    LiveLine(None).show("anything")


def test_levels_are_put_back() -> None:
    logger = logging.getLogger("emissary_lib.dial")
    shown: list[str] = []
    before = (logger.level, list(logger.handlers))
    with show_dials(lambda *texts: shown.append(texts[0])):
        Dialling().takes(2.0)
    assert (logger.level, logger.handlers) == before
    assert [bool(text) for text in shown] == [True, False]
