"""``emissary sessions``: lists the sessions of a stack, and ends some of them."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, TextIO

from emissary_lib.aws import client
from emissary_lib.bridge.callbacks import redirected_endpoint
from emissary_lib.bridge.report import Figures, figures
from emissary_lib.bridge.session import EndRecord, SessionRecord
from emissary_lib.cli.command import add_parser, key_id
from emissary_lib.cli.output import standard_output
from emissary_lib.cli.settings import add_settings, settings_reader
from emissary_lib.client.config import URL
from emissary_lib.exceptions import ConfigError, OperationError
from emissary_lib.exit_status import Exit
from emissary_lib.operate.keys import format_time
from emissary_lib.operate.kill import KillResult, Outcome, kill_all, select_sessions
from emissary_lib.operate.sessions import SESSION_ID, ListedSession, SessionTable
from emissary_lib.protocol.codes import Code

SUMMARY: Final = "list open and past sessions; end a session"
DESCRIPTION: Final = """\
`list` shows the sessions of the last week that named a target, the newest first: state, key, the address they
came from, target, bytes each way, why they ended. A session is "lost" if its time is up though nobody has
recorded how it ended; "shared" stands for its target if it carries connections to several, with how many.
`kill` ends sessions, by id or the beginning of it, or all of a key: it is recorded at once, and both sides
are told within a second; the relay then resets its connections to the target, of a shared session all.

The table is TableName of the stack's outputs, the URL its WebSocketUrl (default: EMISSARY_URL, in the
environment or in .env); AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI, for an emulator, wins over it. The operator
needs dynamodb:Scan, and to kill, dynamodb:GetItem and dynamodb:UpdateItem on the table and
execute-api:ManageConnections on the API.
"""
EPILOG: Final = """\
examples:
  emissary sessions list --table emissary-SessionTable-1ABCDEFGHIJK
  emissary sessions list --table emissary-SessionTable-1ABCDEFGHIJK --alive --json
  emissary sessions kill 8f14e45fceea167a --table emissary-SessionTable-1ABCDEFGHIJK
  emissary sessions kill --key 1 --table emissary-SessionTable-1ABCDEFGHIJK
"""
EXITS: Final = frozenset({Exit.SETTINGS, Exit.NOT_DONE})

_LIST_DESCRIPTION: Final = """\
Show the sessions that named a target, the newest first: those alive, and those that ended within the last
week. State is opening, launched, open, ended, or lost: its time is up though nobody has recorded how it
ended. Times are UTC. The whole table is read, consistently.

A shared session carries many connections, each to a target of its own. Instead of a target it has the number
of those that it has carried, and of those that are open, as its relay last told, ten seconds late at most;
the relay logs where each leads. With --json: shared, connections, connections_open and connections_refused,
the last three null if nothing was told.

The operator needs dynamodb:Scan on the table.
"""
_LIST_EPILOG: Final = """\
examples:
  emissary sessions list --table emissary-SessionTable-1ABCDEFGHIJK
  emissary sessions list --table emissary-SessionTable-1ABCDEFGHIJK --alive
  emissary sessions list --table emissary-SessionTable-1ABCDEFGHIJK --all --json
"""

_KILL_DESCRIPTION: Final = """\
End sessions, each by its id or the beginning of it, or all that are alive of a key, or both. The end is
recorded at once, and both sides are told within a second; a side that cannot be told is cut off. A shared
session ends with all its connections: a single one of them cannot be ended. The outcome of each session is
printed; a failure with one does not keep the others from being ended. Retire a key first: its holder can dial
again.

The status is 0 if all were killed; of those of a --key, some may have ended by themselves meanwhile. It is 14
if a SESSION had ended already, if AWS refused something for one of them, or if a side could be neither told
nor cut off; those printed as killed are killed all the same. It is 14, too, and nobody is killed, if a
SESSION is not there or could be several, or if there is nobody to kill.

The operator needs dynamodb:Scan, dynamodb:GetItem and dynamodb:UpdateItem on the table, and
execute-api:ManageConnections on the API.
"""
_KILL_EPILOG: Final = """\
examples:
  emissary sessions kill 8f14e45fceea167a --table emissary-SessionTable-1ABCDEFGHIJK
  emissary sessions kill 8f14e45f c9f0f895 --table emissary-SessionTable-1ABCDEFGHIJK --json
  emissary sessions kill --key 1 --table emissary-SessionTable-1ABCDEFGHIJK --url wss://db.example/emissary
"""

#: Digits of a session id that a list shows: enough to be the only one.
_DIGITS = 16

_COLUMNS = f"{'session':<18}{'state':<10}{'key':<6}{'from':<17}{'started':<22}{'seconds':>8}  "


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare its actions and their options."""
    actions = parser.add_subparsers(title="actions", dest="action", metavar="ACTION", required=True)
    list_parser = add_parser(
        actions,
        "list",
        summary="those alive, and those of the last week",
        description=_LIST_DESCRIPTION,
        epilog=_LIST_EPILOG,
        exits=EXITS,
    )
    list_parser.add_argument("--alive", action="store_true", help="only those that may still carry bytes")
    list_parser.add_argument(
        "--all", action="store_true", help="also those that never named a target, health checks among them"
    )
    kill_parser = add_parser(
        actions,
        "kill",
        summary="end sessions, and tell both sides",
        description=_KILL_DESCRIPTION,
        epilog=_KILL_EPILOG,
        exits=EXITS,
    )
    kill_parser.add_argument(
        "session", type=_session_id, nargs="*", metavar="SESSION", help="id, or at least 8 digits of it"
    )
    kill_parser.add_argument("--key", type=key_id, metavar="ID", help="all that are alive of this key")
    kill_parser.add_argument("--url", metavar="URL", help="the stack's WebSocketUrl (default: EMISSARY_URL)")
    add_settings(kill_parser)
    for action in (list_parser, kill_parser):
        action.add_argument("--table", required=True, metavar="NAME", help="the stack's TableName")
        action.add_argument("--json", action="store_true", help="print one line of JSON")


def run(args: argparse.Namespace) -> int:
    """Run the action."""
    if args.action == "list":
        list_sessions(
            args.table, alive=args.alive, everything=args.all, json_line=args.json, out=standard_output()
        )
        return Exit.OK
    if not args.session and args.key is None:
        args.parser.error("name a SESSION, or a --key")
    endpoint = _callback_endpoint(args)
    kill(args.table, args.session, args.key, endpoint, json_line=args.json, out=standard_output())
    return Exit.OK


def _callback_endpoint(args: argparse.Namespace) -> str:
    """Where both sides can be told: where the functions post to.

    Raises:
        ConfigError: There is no URL, or it is none.
    """
    if redirected := redirected_endpoint(os.environ):
        return redirected
    found = None if args.url else settings_reader(args).find(URL, needed=True)
    url = args.url or (found.text if found else "")
    if not url:
        raise ConfigError(
            f"{URL} is not set; give --url (WebSocketUrl of the stack's outputs), or neither side can be told"
        )
    from emissary_lib.client.endpoint import Endpoint  # loads what --help can do without

    return Endpoint(url).callback_url


def _session_id(text: str) -> str:
    """A session's id, or enough of its beginning."""
    if not SESSION_ID.fullmatch(text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no session id; want 8 to 64 hexadecimal digits, as listed"
        )
    return text


def list_sessions(table: str, *, alive: bool, everything: bool, json_line: bool, out: TextIO) -> None:
    """Print the sessions that the table knows, the newest first.

    Raises:
        OperationError: AWS refused.
    """
    with client("dynamodb", table) as dynamodb:
        sessions = SessionTable(dynamodb, table).list(alive=alive, everything=everything)
    if json_line:
        print(json.dumps([_session_json(each) for each in sessions]), file=out, flush=True)
        return
    print(f"{_COLUMNS}{'bytes up':>12}{'down':>12}  target and end", file=out)
    for each in sessions:
        print(_session_line(each), file=out)
    out.flush()


def kill(
    table: str,
    sessions: Sequence[str],
    key_id: int | None,
    endpoint: str,
    *,
    json_line: bool,
    out: TextIO,
) -> None:
    """End sessions, and tell both sides.

    Args:
        table: The table's name.
        sessions: Ids, or their beginnings.
        key_id: All living sessions of this key as well; None for none.
        endpoint: Where ``@connections`` is.
        json_line: Print one line of JSON.
        out: Where to print.

    Raises:
        OperationError: AWS refused, or one of ``sessions`` is not there: nobody is killed. Or some could not
            be killed, had ended already though named in ``sessions``, or may go on because a side could not
            be told: all others are killed, and what has become of each is printed.
    """
    outcomes: list[Outcome] = []
    with (
        client("dynamodb", table) as dynamodb,
        client("apigatewaymanagementapi", table, endpoint=endpoint) as callbacks,
    ):
        store = SessionTable(dynamodb, table)
        found = select_sessions(store, sessions, key_id)
        try:
            for each in kill_all(store, callbacks, found):
                outcomes.append(each)
                if not json_line:
                    print(_outcome_line(each), file=out, flush=True)
        finally:  # also after Ctrl-C: of whoever was done with by then
            if json_line:
                print(json.dumps([_outcome_json(each) for each in outcomes]), file=out, flush=True)
    faults = [fault for each in outcomes for fault in _faults(each, sessions)]
    if faults:
        more = f"; and {len(faults) - 1} more, see the output" if faults[1:] else ""
        raise OperationError(faults[0] + more)


def _outcome_line(each: Outcome) -> str:
    killed = each.result is KillResult.KILLED
    which = " with all its connections" if killed and each.session.shared else ""
    more = "; " + ", ".join(f"{side}: {what}" for side, what in each.told.items()) if each.told else ""
    return f"{each.session.id[:_DIGITS]} {each.result.value}{which}{more}{each.cause and ': ' + each.cause}"


def _outcome_json(each: Outcome) -> Mapping[str, object]:
    return {
        "session": each.session.id,
        "target": each.session.target,
        "outcome": each.result.value,
        "relay": each.told.get("relay"),
        "dialer": each.told.get("dialer"),
        "cause": each.cause or None,
    }


def _faults(each: Outcome, named: Iterable[str]) -> Iterator[str]:
    """Why the command fails because of one session."""
    session = f"session {each.session.id[:_DIGITS]}"
    if each.result is KillResult.FAILED:
        yield f"{session} was not killed: {each.cause}"
    elif each.result is KillResult.ENDED and any(each.session.id.startswith(name) for name in named):
        yield f"{session} had ended already"
    elif each.unreached_sides:
        sides = " and ".join(each.unreached_sides)
        yield (
            f"{session} is recorded as killed, but its {sides} could be neither told nor cut off and may go "
            "on until the relay's time is up; to tell them takes execute-api:ManageConnections on the API"
        )


#: Stands in where nobody has said how a session ended.
_UNKNOWN_END = EndRecord(Code.OK, 0, 0, "", 0.0)


def _figures(session: SessionRecord) -> Figures | None:
    """Zeros where nobody has told any yet; None where what was told cannot be."""
    return Figures(0, 0, 0, 0) if session.ending is None else figures(session)


def _session_json(each: ListedSession) -> Mapping[str, object]:
    session = each.record
    end, told = session.ending or _UNKNOWN_END, _figures(session)
    return {
        "session": session.id,
        "state": each.state,
        "key_id": session.key_id,
        "source": session.source,
        "target": session.target,
        "shared": session.shared,
        "connections": session.connections_opened,
        "connections_open": each.connections_open,
        "connections_refused": None if session.connections is None else session.connections.refused,
        "started": format_time(session.started),
        "ended": None if each.ended_at is None else format_time(each.ended_at),
        "code": None if session.ending is None else end.code.name,
        "reason": "" if session.ending is None else end.text,
        "dialer_bytes": told.dialer_bytes if told else None,
        "relay_bytes": told.relay_bytes if told else None,
        "dialer_messages": told.dialer_messages if told else None,
        "relay_messages": told.relay_messages if told else None,
        "reported_by": None if session.ending is None else session.ending.reported_by,
        "implausible": told is None,
    }


def _session_line(each: ListedSession) -> str:
    session = each.record
    told = _figures(session)
    carried = f"{told.dialer_bytes:>12}{told.relay_bytes:>12}" if told else f"{'-':>12}{'-':>12}"
    seconds = "-" if each.ended_at is None else f"{max(0.0, each.ended_at - session.started):.0f}"
    why = "" if session.ending is None else f", {session.ending.code.name}"
    return (
        f"{session.id[:_DIGITS]:<18}{each.state:<10}{session.key_id:<6}{session.source or '-':<17}"
        f"{format_time(session.started):<22}{seconds:>8}  {carried}  "
        f"{_target_text(each)}{why}"
    )


def _target_text(each: ListedSession) -> str:
    """The target; of a shared session, which has none of its own, how many connections there are."""
    session, opened = each.record, each.record.connections_opened
    if not session.shared:
        return session.target or "-"
    if opened is None:
        return "shared"
    still = f", {each.connections_open} open" if each.alive and each.connections_open is not None else ""
    return f"shared: {opened} connection{'' if opened == 1 else 's'}{still}"
