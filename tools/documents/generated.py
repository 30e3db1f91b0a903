"""The parts of the documents that are made from the code.

A part stands between ``<!-- generated: NAME -->`` and ``<!-- end -->``. Where a table also explains, its last
columns are written by hand: they are kept, row by row, as they stand in the document.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import yaml

from emissary_lib import exceptions
from emissary_lib.bridge import session as stored
from emissary_lib.doctor import render, run
from emissary_lib.doctor.checks import Report
from emissary_lib.exit_status import MEANINGS, Exit, exit_status, statuses
from emissary_lib.prices import us_east_1
from emissary_lib.protocol import codes, constants
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.mux import answers
from emissary_lib.protocol.mux import states as mux_states
from emissary_lib.protocol.opening.socks5_messages import reply_for
from emissary_lib.protocol.original import opening as original_opening
from emissary_lib.protocol.original import stream as original_stream
from emissary_lib.protocol.session import states
from emissary_lib.protocol.stream import message_size
from emissary_lib.protocol.targets.allow_list import Target
from emissary_lib.protocol.wire.frames import FrameType
from functions.common.metrics import Metric
from tools import costs
from tools.documents import ROOT
from tools.probe.questions import QUESTIONS

#: What stands for a hand-written cell that nobody has written yet; the check fails over it.
MISSING: Final = "MISSING"

#: Codes below this end open tunnels too; the others happen while dialling (docs/protocol.md section 8).
_DIALLING_ONLY: Final = 32

_ANY: Final = Target("db.internal", 5432)


def table(head: Sequence[str], rows: Iterable[Sequence[object]], former: str = "") -> str:
    """A table; a row that is shorter than ``head`` keeps its last cells from the same row of ``former``."""
    kept = {cells[0]: cells for cells in map(_cells, former.splitlines())}
    lines = [head, ["---"] * len(head)]
    for row in rows:
        made = list(map(str, row))
        by_hand = kept.get(made[0], [])[len(made) : len(head)]
        lines.append([*made, *by_hand, *[MISSING] * (len(head) - len(made) - len(by_hand))])
    return (
        "\n".join(f"| {' | '.join(line)} |" for line in lines)
        .replace("| --- ", "|---")
        .replace("--- |", "---|")
    )


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().removeprefix("|").removesuffix("|").split(" | ")]


def code_table(_former: str) -> str:
    """Every code, and what becomes of it."""
    return table(
        ["code", "name", "SOCKS5 reply", "`dial` raises", "open tunnel", "exit status", "meaning"],
        [_code_row(code) for code in Code],
    )


def _code_row(code: Code) -> list[object]:
    reply: object = "-" if code is Code.AUTHENTICATION_FAILED else int(reply_for(code))
    if code is Code.OK:
        return [0, code.name, reply, "-", "-", 0, codes.MEANINGS[code]]
    errors: list[Exception] = [exceptions.dial_error(_ANY, code)]
    if code < _DIALLING_ONLY or code is Code.AUTHENTICATION_FAILED:
        errors.append(exceptions.reset_error(_ANY, code, ""))
    names = [type(error).__name__ for error in errors]
    status = ", ".join(str(int(exit_status(error))) for error in errors)
    return [int(code), code.name, reply, *[*names, "-"][:2], status, codes.MEANINGS[code]]


def exit_status_table(_former: str) -> str:
    """Every exit status, and the exceptions that end with it."""
    by_status: dict[Exit, list[str]] = {}
    for kind, status in statuses():
        by_status.setdefault(status, []).append(f"`{kind.__name__}`")
    by_status[Exit.FAULT] = ["any other"]
    return table(
        ["status", "meaning", "exceptions"],
        [[int(each), meaning, ", ".join(by_status.get(each, ["-"]))] for each, meaning in MEANINGS.items()],
    )


def exit_status_advice_table(former: str) -> str:
    """What to do about each exit status."""
    return table(
        ["status", "meaning", "what to do"],
        [[int(each), meaning] for each, meaning in MEANINGS.items()],
        former,
    )


def error_advice_table(former: str) -> str:
    """What to do about each error, with the exit status that it ends a command with."""
    kinds = [getattr(exceptions, name) for name in exceptions.__all__]
    return table(
        ["error", "exit status", "what to do"],
        [[f"`{kind.__name__}`", _status_of(kind)] for kind in kinds],
        former,
    )


def _status_of(kind: type[BaseException]) -> int:
    return int(next(status for each, status in statuses() if issubclass(kind, each)))


def number_table(former: str) -> str:
    """Every number of the protocol."""
    names = [name for name in vars(constants) if name.isupper()]
    order = [_cells(line)[0] for line in former.splitlines()]
    names.sort(key=lambda name: order.index(name) if name in order else len(order))
    return table(
        ["number", "value", "unit", "section"],
        [[name, _number(getattr(constants, name))] for name in names],
        former,
    )


def _number(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(_number, value))
    return f"`{value}`" if isinstance(value, str) else f"{value:,}".removesuffix(".0")


def frame_table(former: str) -> str:
    """Every type of frame."""
    return table(
        ["type", "name", "from", "handled by", "payload"],
        [[each.value, each.name] for each in FrameType],
        former,
    )


def parameter_table(former: str) -> str:
    """The stack's parameters."""
    return table(
        ["Parameter", "Default", "Meaning"],
        [[f"`{name}`", _default(each)] for name, each in _template("Parameters").items()],
        former,
    )


def _default(parameter: dict[str, Any]) -> str:
    value = parameter.get("Default")
    return "must be given" if value is None else "empty" if value == "" else f"`{value}`"


def output_table(former: str) -> str:
    """The stack's outputs."""
    return table(["Output", "Meaning"], [[f"`{name}`"] for name in _template("Outputs")], former)


def metric_table(former: str) -> str:
    """The metrics."""
    head = _cells(former.splitlines()[0])
    return table(head, [[f"`{metric.title}`"] for metric in Metric], former)


def _template(section: str) -> dict[str, Any]:
    class Loader(yaml.SafeLoader):
        """Reads the template without resolving its functions."""

    Loader.add_multi_constructor("!", lambda *_: None)
    text = (ROOT / "template.yaml").read_text(encoding="utf-8")
    found: dict[str, Any] = yaml.load(text, Loader)[section]
    return found


def check_table(former: str) -> str:
    """The doctor's checks."""
    return table(
        ["check", "what it looks at", "exit status if it fails"],
        [[f"`{name}`"] for name in run.CHECKS],
        former,
    )


def json_table(former: str) -> str:
    """The members of the doctor's JSON."""
    members = json.loads(render.as_json(Report(None, None, ())))
    return table(["member", "what it is"], [[f"`{name}`"] for name in members], former)


def session_diagram(_former: str) -> str:
    """The states of a session, the same for dialer and relay."""
    return _diagram(
        (source.value, target.value, step.value) for (source, step), target in states.TRANSITIONS.items()
    )


def stored_session_diagram(_former: str) -> str:
    """The states of the session that the bridge stores."""
    steps = (
        (source.value, (change.to or source).value, step.value)
        for step, change in stored.TRANSITIONS.items()
        for source in stored.RecordState
        if source in change.sources
    )
    return _diagram(steps, {state.value: step for state, step in stored.BEGINNINGS.items()})


def mux_diagram(_former: str) -> str:
    """The states of one connection in a shared session, the same for dialer and relay."""
    return _diagram(
        (source.value.replace(" ", "_"), target.value.replace(" ", "_"), step.value)
        for (source, step), target in mux_states.TRANSITIONS.items()
    )


def original_opening_diagram(_former: str) -> str:
    """The states of an opening over the original's transport."""
    return _diagram(
        (source.value, target.value, step.value)
        for (source, step), target in original_opening.TRANSITIONS.items()
    )


def original_diagram(_former: str) -> str:
    """The states of a connection over the original's transport."""
    return _diagram(
        (source.value.replace(" ", "_"), target.value.replace(" ", "_"), step.value)
        for (source, step), target in original_stream.TRANSITIONS.items()
    )


def message_size_diagram(_former: str) -> str:
    """What a sender knows of the length of its messages."""
    return _diagram(
        (source.value, target.value, step.value)
        for (source, step), target in message_size.TRANSITIONS.items()
    )


def mux_status_table(_former: str) -> str:
    """The answers to a request for a connection."""
    codes_of: dict[str, list[Code]] = {}
    for code in Code:
        if code is Code.OK or code >= _DIALLING_ONLY:
            codes_of.setdefault(answers.answer_headers(code)[0][1], []).append(code)
    return table(
        ["status", "codes"],
        [[status, ", ".join(code.name for code in each)] for status, each in sorted(codes_of.items())],
    )


def mux_reset_table(_former: str) -> str:
    """The RST_STREAM error of each reason to cut a connection off."""
    rows: list[Sequence[object]] = [
        [code.name, error.name, f"{error:#x}"] for code, error in answers.RESET_ERRORS.items()
    ]
    other = answers.reset_error(Code.PROTOCOL_ERROR)
    return table(["code", "error", "number"], [*rows, ["any other", other.name, f"{other:#x}"]])


def _diagram(steps: Iterable[tuple[str, str, str]], begin: Mapping[str, str] | None = None) -> str:
    """A diagram of these steps; ``begin`` has the first states, if there are several, and how each begins."""
    edges: dict[tuple[str, str], list[str]] = {}
    for source, target, step in steps:
        edges.setdefault((source, target), []).append(step)
    first, last = next(iter(edges))[0], list(edges)[-1][1]
    lines = [f"{source} --> {target}: {', '.join(each)}" for (source, target), each in edges.items()]
    first_steps = [f"{state}: {step}" for state, step in begin.items()] if begin else [first]
    lines = [*(f"[*] --> {each}" for each in first_steps), *lines, f"{last} --> [*]"]
    return "\n".join(["```mermaid", "stateDiagram-v2", *(f"    {line}" for line in lines), "```"])


def cost_table(_former: str) -> str:
    """What each kind of message costs, as it was measured."""
    return table(
        ["from", "message", "invocations", "posts", "metered", "writes", "reads", "dollars a million"],
        [
            [
                cost.who, cost.message, cost.invocations, cost.posts, cost.units,
                f"{cost.writes:g}", f"{cost.reads:g}", f"{cost.dollars:.2f}",
            ]
            for cost in costs.load()
        ],
    )  # fmt: skip


def price_table(former: str) -> str:
    """What AWS charges, of which all other prices are made."""
    arm64, x86_64 = us_east_1("arm64"), us_east_1("x86_64")
    million, gb = 1e6, 1e9
    prices = [
        ("a million WebSocket messages of up to 32 KB, either way", million * arm64.websocket_message),
        ("a million minutes of a WebSocket", million * arm64.websocket_connection_minute),
        ("a million Lambda invocations", million * arm64.lambda_request),
        ("a GB of Lambda's memory for a second, `arm64`", arm64.lambda_gb_second),
        ("the same, `x86_64`", x86_64.lambda_gb_second),
        ("a million DynamoDB write units", million * arm64.dynamodb_write_unit),
        ("a million DynamoDB read units", million * arm64.dynamodb_read_unit),
        ("a GB to the internet", gb * arm64.internet_byte),
        ("a GB through a NAT gateway, either way", gb * arm64.nat_byte),
        ("a NAT gateway, an hour", arm64.nat_hour),
        ("its public IPv4 address, an hour", arm64.address_hour),
        ("a GB of log", gb * arm64.log_byte),
        ("a metric, a month", arm64.metric_month),
        ("a metric that an alarm watches, a month", arm64.alarm_metric_month),
        ("a dashboard, a month", arm64.dashboard_month),
        ("a secret, a month", arm64.secret_month),
    ]
    head = ["What", "Dollars", "Source"]
    return table(head, [[what, _dollars(price)] for what, price in prices], former)


def _dollars(price: float) -> str:
    """All digits that it has, and cents at least."""
    whole, _, digits = f"{price:.10f}".rstrip("0").partition(".")
    return f"{whole}.{digits:0<2}"


def question_table(_former: str) -> str:
    """What the probe asks AWS."""
    return table(
        ["", "question", "Emissary assumes", "if not"],
        [[each.number, each.text, each.assumes, each.otherwise] for each in QUESTIONS],
    )


PARTS: Final[dict[str, Callable[[str], str]]] = {
    "codes": code_table,
    "exit-statuses": exit_status_table,
    "exit-status-advice": exit_status_advice_table,
    "error-advice": error_advice_table,
    "numbers": number_table,
    "frame-types": frame_table,
    "session-states": session_diagram,
    "mux-statuses": mux_status_table,
    "mux-resets": mux_reset_table,
    "mux-states": mux_diagram,
    "original-opening-states": original_opening_diagram,
    "original-states": original_diagram,
    "message-size-states": message_size_diagram,
    "stored-session-states": stored_session_diagram,
    "parameters": parameter_table,
    "outputs": output_table,
    "metrics": metric_table,
    "doctor-checks": check_table,
    "doctor-json": json_table,
    "costs": cost_table,
    "prices": price_table,
    "probe-questions": question_table,
}
