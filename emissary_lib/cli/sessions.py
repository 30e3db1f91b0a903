"""``emissary sessions``: who is in, who was, and how to put somebody out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TextIO

from emissary_lib.client.config import URL
from emissary_lib.exceptions import ConfigError, OperationError
from emissary_lib.operate.clients import client
from emissary_lib.operate.keys import shown_time
from emissary_lib.operate.kill import Fate, Outcome, chosen, kill_all
from emissary_lib.operate.notify import callback_endpoint
from emissary_lib.operate.sessions import SessionFacts, SessionTable

#: Digits of a session id that a list shows: enough to be the only one.
_DIGITS = 16

_COLUMNS = f"{'session':<18}{'state':<10}{'key':<6}{'from':<17}{'started':<22}{'seconds':>8}  "


def list_sessions(table: str, *, alive: bool, everything: bool, json_line: bool, out: TextIO) -> None:
    """Print the sessions that the table knows, the newest first.

    Raises:
        OperationError: AWS refused.
    """
    with client("dynamodb", table) as dynamodb:
        sessions = SessionTable(dynamodb, table).list(alive=alive, everything=everything)
    if json_line:
        print(json.dumps([_facts(each) for each in sessions]), file=out, flush=True)
        return
    print(f"{_COLUMNS}{'bytes up':>12}{'down':>12}  target and end", file=out)
    for each in sessions:
        print(_line(each), file=out)
    out.flush()


def kill(
    table: str,
    sessions: Sequence[str],
    key_id: int | None,
    url: str,
    *,
    json_line: bool,
    out: TextIO,
) -> None:
    """End sessions, and tell both sides.

    Args:
        table: The table's name.
        sessions: Ids, or their beginnings.
        key_id: All living sessions of this key as well; None for none.
        url: The API's ``wss://`` URL.
        json_line: Print one line of JSON.
        out: Where to print.

    Raises:
        ConfigError: There is no URL.
        OperationError: AWS refused, or one of ``sessions`` is not there: nobody is killed. Or some could not
            be killed, had ended already though named in ``sessions``, or may go on because a side could not
            be told: all others are killed, and what has become of each is printed.
    """
    if not url:
        raise ConfigError(
            f"{URL} is not set; give --url (WebSocketUrl of the stack's outputs), or neither side can be told"
        )
    endpoint = callback_endpoint(url)
    outcomes: list[Outcome] = []
    with (
        client("dynamodb", table) as dynamodb,
        client("apigatewaymanagementapi", table, endpoint=endpoint) as callbacks,
    ):
        store = SessionTable(dynamodb, table)
        found = chosen(store, sessions, key_id)
        try:
            for each in kill_all(store, callbacks, found):
                outcomes.append(each)
                if not json_line:
                    print(_said(each), file=out, flush=True)
        finally:  # also after Ctrl-C: of whoever was done with by then
            if json_line:
                print(json.dumps([_outcome(each) for each in outcomes]), file=out, flush=True)
    faults = [fault for each in outcomes for fault in _faults(each, sessions)]
    if faults:
        more = f"; and {len(faults) - 1} more, see the output" if faults[1:] else ""
        raise OperationError(faults[0] + more)


def _said(each: Outcome) -> str:
    more = "; " + ", ".join(f"{side}: {what}" for side, what in each.told.items()) if each.told else ""
    return f"{each.session.id[:_DIGITS]} {each.fate.value}{more}{each.cause and ': ' + each.cause}"


def _outcome(each: Outcome) -> Mapping[str, object]:
    return {
        "session": each.session.id,
        "target": each.session.target,
        "outcome": each.fate.value,
        "relay": each.told.get("relay"),
        "dialer": each.told.get("dialer"),
        "cause": each.cause or None,
    }


def _faults(each: Outcome, named: Iterable[str]) -> Iterator[str]:
    """What the command's status has to tell of one session."""
    session = f"session {each.session.id[:_DIGITS]}"
    if each.fate is Fate.FAILED:
        yield f"{session} was not killed: {each.cause}"
    elif each.fate is Fate.ENDED and any(each.session.id.startswith(name) for name in named):
        yield f"{session} had ended already"
    elif each.unreached:
        sides = " and ".join(each.unreached)
        yield (
            f"{session} is recorded as killed, but its {sides} could be neither told nor cut off and may go "
            "on until the relay's time is up; to tell them takes execute-api:ManageConnections on the API"
        )


def _facts(each: SessionFacts) -> Mapping[str, object]:
    return {
        "session": each.id,
        "state": each.state,
        "key_id": each.key_id,
        "source": each.source,
        "target": each.target,
        "started": shown_time(each.started),
        "ended": None if each.ended is None else shown_time(each.ended),
        "code": None if each.code is None else each.code.name,
        "reason": each.reason,
        "dialer_bytes": each.dialer_bytes,
        "relay_bytes": each.relay_bytes,
        "dialer_messages": each.dialer_messages,
        "relay_messages": each.relay_messages,
    }


def _line(each: SessionFacts) -> str:
    seconds = "-" if each.ended is None else f"{max(0.0, each.ended - each.started):.0f}"
    end = "" if each.code is None else f", {each.code.name}"
    return (
        f"{each.id[:_DIGITS]:<18}{each.state:<10}{each.key_id:<6}{each.source or '-':<17}"
        f"{shown_time(each.started):<22}{seconds:>8}  {each.dialer_bytes:>12}{each.relay_bytes:>12}  "
        f"{each.target or '-'}{end}"
    )
