"""``emissary sessions``: who is in, who was, and how to put somebody out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from emissary_lib.config import URL
from emissary_lib.exceptions import ConfigError, OperationError
from emissary_lib.operate.clients import client
from emissary_lib.operate.keys import shown_time
from emissary_lib.operate.notice import callback_endpoint, tell_ended
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
        OperationError: AWS refused, or a session is not there or has ended. Those before it are killed.
    """
    if not url:
        raise ConfigError(
            f"{URL} is not set; give --url (WebSocketUrl of the stack's outputs), or neither side can be told"
        )
    endpoint = callback_endpoint(url)
    outcomes: list[dict[str, Any]] = []
    with (
        client("dynamodb", table) as dynamodb,
        client("apigatewaymanagementapi", table, endpoint=endpoint) as callbacks,
    ):
        store = SessionTable(dynamodb, table)
        found = [store.find(each) for each in sessions]
        if key_id is not None:
            found += [each for each in store.list(alive=True, everything=True) if each.key_id == key_id]
        if not found:
            raise OperationError(f"no session of key {key_id} is alive")
        for each in found:
            killed = store.kill(each)
            told = tell_ended(callbacks, killed)
            outcomes.append({"session": killed.id, "target": killed.target, **told})
            if not json_line:
                print(
                    f"{killed.id[:_DIGITS]} killed; relay: {told['relay']}, dialer: {told['dialer']}",
                    file=out,
                )
    if json_line:
        print(json.dumps(outcomes), file=out)
    out.flush()


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
