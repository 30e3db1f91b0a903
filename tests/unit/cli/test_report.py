"""What ``emissary forward`` says while it runs: to programs, to people, and to nobody."""

from __future__ import annotations

import io
import json
import logging
import math
import time
from collections.abc import Callable
from typing import cast

import pytest

from emissary_lib.cli.dialling import format_address, show_warnings
from emissary_lib.cli.dials import fit
from emissary_lib.cli.report import JsonEvents, Report, StatusLine, choose, format_bytes, format_left
from emissary_lib.client.drain import Connection, Drainable
from emissary_lib.client.forward import Forward, Forwarded, ForwardedAddress, Happening
from emissary_lib.client.hang_up import ConnectedDeadline
from emissary_lib.client.listening import Listener
from emissary_lib.client.socket import SessionInfo
from emissary_lib.exceptions import OutputError, TargetRefusedError
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.stream.counters import Counters
from emissary_lib.protocol.targets.allow_list import Target
from tests.helpers.bridge import TARGET
from tests.helpers.patience import wait_until

PARSED = Target.parse(TARGET)
NOW = 1_795_880_000.0


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Place:
    """A listener that is nowhere."""

    def __init__(self, *address: object, path: str | None = None) -> None:
        self.address = address
        self.path = path


def listening(*places: Place) -> tuple[Target, ForwardedAddress]:
    forward = Forward(("127.0.0.1", 0), lambda sock, accepted: None)
    return PARSED, ForwardedAddress(forward, cast(list[Listener], list(places)))


class Program:
    """One connection of a forward that a report watches, and what becomes of it."""

    def __init__(self, report: Report) -> None:
        self.forward = Forward(("127.0.0.1", 0), lambda sock, accepted: None)
        report.watch(PARSED, self.forward)
        self.moved = (0, 0)
        none = cast(ConnectedDeadline, None)
        self.forwarded = Forwarded(cast(Connection, _Carries()), none, self.forward.on_happening)

    def opens(self, ends_in: float = 900.0) -> None:
        ends_at = NOW + ends_in
        self.forwarded.session = SessionInfo("5e55", PARSED, ends_at, Counters(), lambda: self.moved)
        self.forwarded.tell(Happening.OPENED)

    def moves(self, sent: int, received: int) -> None:
        self.moved = self.moved[0] + sent, self.moved[1] + received

    def ends(self, happening: Happening, error: Exception | None = None) -> None:
        self.forwarded.error = error
        self.forwarded.tell(happening)


REFUSED = TargetRefusedError("it refused", target=PARSED, code=Code.TARGET_REFUSED)


def test_events_are_lines_of_json_and_ready_comes_first() -> None:
    out = io.StringIO()
    events = JsonEvents(out)
    quick, other = Program(events), Program(events)
    quick.opens()
    assert out.getvalue() == ""
    events.ready(
        [listening(Place("127.0.0.1", 5433), Place("::1", 5433)), listening(Place("/d", 5432, path="/d/s"))]
    )
    quick.moves(5, 6)
    quick.ends(Happening.CLOSED)
    other.ends(Happening.FAILED, REFUSED)
    other.ends(Happening.GIVEN_UP)
    told = [json.loads(line) for line in out.getvalue().splitlines()]
    pid = {"pid": told[0].pop("pid")}
    common = {"target": TARGET, "connection": 1}
    assert told == [
        {"event": "ready", "host": "127.0.0.1", "port": 5433, "target": TARGET},
        {"event": "ready", "host": "/d", "port": 5432, "target": TARGET, "path": "/d/s"} | pid,
        {"event": "opened", **common, "session": "5e55", "expires_at": NOW + 900},
        {"event": "closed", **common, "sent": 5, "received": 6},
        {
            "event": "failed",
            "target": TARGET,
            "connection": 2,
            "error": "TargetRefusedError",
            "message": "it refused",
        },
        {"event": "given_up", "target": TARGET, "connection": 2},
    ]


def test_a_connection_without_an_end_to_come_has_none_told() -> None:
    """The original Emissary has no time limit: JSON knows no infinity, and a line needs no number there."""
    out = io.StringIO()
    events = JsonEvents(out)
    events.ready([])
    Program(events).opens(ends_in=math.inf)
    told = [json.loads(line) for line in out.getvalue().splitlines()]
    assert told == [{"event": "opened", "target": TARGET, "connection": 1, "session": "5e55"}]
    line, _out = live()
    Program(line).opens(ends_in=math.inf)
    assert line.text().startswith("1 open, 1 in all; 0 B sent, 0 B received; since ")
    assert "left" not in line.text()


def test_connections_of_several_forwards_share_no_number() -> None:
    """Symptom: each forward counted from 1, and two of the same target could not be told apart."""
    out = io.StringIO()
    events = JsonEvents(out)
    events.ready([])
    programs = [Program(events) for _ in range(3)]
    for program in reversed(programs):
        program.opens()
    for program in programs:
        program.ends(Happening.CLOSED)
    programs[0].forwarded.tell(Happening.GOING_AWAY)  # in a thread of its own
    told = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [each["connection"] for each in told] == [1, 2, 3, 3, 2, 1, 3]


def test_a_session_that_ends_soon_is_an_event_each_time_it_says_so() -> None:
    out = io.StringIO()
    events = JsonEvents(out)
    events.ready([])
    program = Program(events)
    session = SessionInfo("5e55", PARSED, NOW + 900, Counters(), lambda: (0, 0))
    session.announce_end(30.0, NOW)
    program.forwarded.opened(session, cast(Drainable, None))
    session.announce_end(10.0, NOW + 19)
    told = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [(each["event"], each["expires_at"] - NOW) for each in told] == [
        ("opened", 30.0),
        ("going_away", 30.0),
        ("going_away", 29.0),
    ]


class _Carries:
    def carry(self, tunnel: object) -> None: ...


class Closed(io.StringIO):
    """Whoever read it has gone, after so many lines."""

    left = 0

    def write(self, text: str) -> int:
        if not self.left:
            raise OutputError("cannot write to standard output")
        self.left -= 1
        return super().write(text)


@pytest.mark.parametrize("kind", [JsonEvents, StatusLine])
def test_a_reader_that_has_gone_does_no_harm_to_connections(kind: Callable[[io.StringIO], Report]) -> None:
    out = Closed()
    report = kind(out)
    report.ready([])
    program = Program(report)
    program.opens()
    program.ends(Happening.CLOSED)
    report.end()


def test_a_reader_that_was_never_there_is_told_of() -> None:
    with pytest.raises(OutputError):
        JsonEvents(Closed()).ready([listening(Place("127.0.0.1", 5433))])


@pytest.mark.parametrize(
    ("places", "where"),
    [
        ([Place("::1", 5433)], "[::1]:5433"),
        ([Place("127.0.0.1", 5433), Place("::1", 5433)], "127.0.0.1:5433 and [::1]:5433"),
        ([Place("/d", 5432, path="/d/.s.PGSQL.5432")], "/d/.s.PGSQL.5432"),
    ],
)
def test_the_line_for_people_names_both_ends_and_how_to_end_it(places: list[Place], where: str) -> None:
    out = io.StringIO()
    Report(out).ready([listening(*places)])
    assert out.getvalue() == f"Listening on {where}, which leads to db.internal:5432. Ctrl-C ends it.\n"
    assert format_address(("127.0.0.1", 1)) == "127.0.0.1:1"


@pytest.mark.parametrize(
    ("out", "json_events", "environ", "kind"),
    [
        (Terminal(), False, {"TERM": "xterm"}, StatusLine),
        (Terminal(), False, {"TERM": "xterm", "NO_COLOR": "1"}, StatusLine),  # it has none
        (Terminal(), False, {"TERM": "dumb"}, Report),
        (Terminal(), True, {"TERM": "xterm"}, JsonEvents),
        (io.StringIO(), False, {"TERM": "xterm"}, Report),
        (io.StringIO(), True, {}, JsonEvents),
        (None, False, {}, Report),
        (None, True, {}, JsonEvents),
    ],
)
def test_a_line_that_moves_is_for_a_terminal_that_can(
    out: io.StringIO | None, json_events: bool, environ: dict[str, str], kind: type[Report]
) -> None:
    assert type(choose(out, json_events=json_events, environ=environ)) is kind


def live(columns: int = 200) -> tuple[StatusLine, Terminal]:
    out = Terminal()
    return StatusLine(out, lambda: columns, lambda: NOW), out


def test_the_live_line_has_connections_bytes_since_when_and_what_is_left() -> None:
    line, _out = live()
    since = time.strftime("%H:%M:%S", time.localtime(NOW))
    assert line.text() == f"0 open, 0 in all; 0 B sent, 0 B received; since {since}"
    first, second, third = Program(line), Program(line), Program(line)
    first.opens(900.0)
    first.moves(1_500, 2)
    second.opens(59.9)
    second.moves(0, 2_000_000)
    assert line.text() == f"2 open, 2 in all; 1.5 kB sent, 2.0 MB received; since {since}; 59 s left"
    second.ends(Happening.CLOSED)
    third.ends(Happening.FAILED, REFUSED)
    third.ends(Happening.GIVEN_UP)
    assert line.text() == f"1 open, 4 in all; 1.5 kB sent, 2.0 MB received; since {since}; 15 min left"


def test_the_live_line_is_written_over_itself_and_taken_away() -> None:
    line, out = live()
    line.ready([])
    wait_until(lambda: "0 open" in out.getvalue(), "the line")
    line.end()
    shown = out.getvalue()
    assert screen(shown) == ""
    assert "\x1b" not in shown
    assert "\n" not in shown


def test_a_warning_takes_the_live_line_s_place_and_not_its_middle() -> None:
    line, out = live()
    line.ready([])
    wait_until(lambda: "0 open" in out.getvalue(), "the line")
    with show_warnings(out, line):
        logging.getLogger("emissary_lib.forward").warning("it failed")
    at_last = screen(out.getvalue())
    line.end()
    above, below = at_last.split("\n")
    assert above == "emissary: it failed"
    assert below.startswith("0 open")


def test_a_narrow_terminal_gets_what_has_room_in_one_line() -> None:
    line, out = live(columns=10)
    line.ready([])
    wait_until(lambda: out.getvalue(), "the line")
    line.end()
    assert {part.strip() for part in out.getvalue().split("\r")} == {"", "0 open"}
    assert screen(out.getvalue()) == ""


@pytest.mark.parametrize(
    ("columns", "shown"),
    [
        (200, "1 open, 1 in all; 0 B sent, 0 B received; since SINCE; 15 min left"),
        (60, "1 open, 1 in all; 0 B sent, 0 B received; 15 min left"),
        (50, "1 open, 1 in all; 15 min left"),
        (20, "1 open, 1 in all"),
    ],
)
def test_the_live_line_leaves_out_whole_parts_that_have_no_room(columns: int, shown: str) -> None:
    line, _out = live()
    Program(line).opens()
    since = time.strftime("%H:%M:%S", time.localtime(NOW))
    assert fit(line.texts(), columns - 1) == shown.replace("SINCE", since)


def test_what_a_dial_waits_for_has_room_at_80_columns_beside_the_connections() -> None:
    """Symptom: "0 open, 0 in all; 0 B sent, 0 B received; since 10:00:00; emissary: still diall"."""
    line, _out = live()
    words = (
        "still dialling db.internal:5432 after 2.1 s: waiting for the relay to start and to reach the target",
    )
    line.show(*(f"emissary: {each}" for each in (*words, "dialling db.internal:5432 for 2 s (relay)")))
    assert fit(line.texts(), 79) == "0 open, 0 in all; dialling db.internal:5432 for 2 s (relay)"
    assert words[0] in fit(line.texts(), 150)
    line.show("")
    assert fit(line.texts(), 79).startswith("0 open, 0 in all; 0 B sent, 0 B received; since")


def screen(written: str) -> str:
    """What a terminal shows of it."""
    lines = []
    for line in written.split("\n"):
        cells: list[str] = []
        for part in line.split("\r"):
            cells[: len(part)] = part
        lines.append("".join(cells).rstrip())
    return "\n".join(lines)


def test_figures_are_for_people() -> None:
    assert [format_bytes(n) for n in (0, 999, 1_000, 12_345_678, 5 * 10**9)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "12.3 MB",
        "5.0 GB",
    ]
    assert [format_left(s) for s in (0.0, 59.9, 60.0, 899.0)] == ["0 s", "59 s", "1 min", "14 min"]
