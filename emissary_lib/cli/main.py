"""The ``emissary`` command: arguments and exit statuses, no logic."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from emissary_lib._version import __version__
from emissary_lib.cli import keys, sessions, texts, values
from emissary_lib.cli.doctor import GREET, TIMEOUT, run_doctor
from emissary_lib.cli.execute import run_command
from emissary_lib.cli.forward import LISTEN, listening, run_until_stopped, shown, warnings_shown
from emissary_lib.client.config import URL, read_env_file
from emissary_lib.client.dialer import DIAL_TIMEOUT, Dialer
from emissary_lib.exceptions import EmissaryError
from emissary_lib.exit_status import MEANINGS, Exit, exit_status

EXIT_STATUSES: Final = "exit status:\n" + "".join(
    f"  {status.value:<4} {meaning}\n" for status, meaning in MEANINGS.items()
)

#: What stands between the arguments of ``exec`` and the command that it runs.
_SEPARATOR: Final = "--"

_Commands = argparse._SubParsersAction


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Arguments without the program's name; ``None`` for those of the process.

    Returns:
        The exit status, one of :data:`EXIT_STATUSES`, or that of the command that ``exec`` has run.

    Raises:
        SystemExit: By argparse: after ``--help`` and ``--version``, and with status 2 on wrong usage.
    """
    arguments = parse(argv)
    command: Callable[[argparse.Namespace], int] = arguments.command
    try:
        return command(arguments)
    except ModuleNotFoundError as error:
        if arguments.extra is None:
            raise
        return _complain(_extra(error, arguments.extra), exit_status(error))
    except EmissaryError as error:
        return _complain(error, exit_status(error))
    except KeyboardInterrupt as error:
        return _complain("interrupted", exit_status(error))


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line.

    Raises:
        SystemExit: As :func:`main`.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    words: list[str] = []
    if given[:1] == ["exec"] and _SEPARATOR in given:
        at = given.index(_SEPARATOR)
        given, words = given[:at], given[at + 1 :]
    top = parser()
    arguments = top.parse_args(given)
    arguments.words = words
    if given[:2] == ["sessions", "kill"] and not arguments.session and arguments.key is None:
        top.error("sessions kill: name a SESSION, or a --key")
    if given[0] == "exec" and not words:
        top.error("exec: name the command to run behind --, as in: emissary exec db.internal:5432 -- psql")
    return arguments


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line, but for the command that ``exec`` runs; see :func:`parse`."""
    top = argparse.ArgumentParser(
        prog="emissary",
        description="Reach databases inside a private VPC through API Gateway and Lambda.",
        epilog="Each command explains itself: emissary COMMAND --help\n\n" + EXIT_STATUSES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"emissary {__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_exec(commands)
    _add_forward(commands)
    _add_doctor(commands)
    _add_local(commands)
    _add_template(_add(commands, "demo", _run_demo, extra="demo"))
    _add_template(_add(commands, "bench", _run_bench, extra="local"))
    _add_keys(commands)
    _add_sessions(commands)
    return top


def _add(
    commands: _Commands[argparse.ArgumentParser],
    name: str,
    run: Callable[[argparse.Namespace], int],
    *,
    extra: str | None = None,
    usage: str | None = None,
) -> argparse.ArgumentParser:
    text = texts.ALL[name]
    command = commands.add_parser(
        name.split()[-1],
        help=text.summary,
        usage=usage,
        description=text.description,
        epilog=f"{text.examples}\n{EXIT_STATUSES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(command=run, extra=extra)
    return command


def _add_exec(commands: _Commands[argparse.ArgumentParser]) -> None:
    usage = "emissary exec [-h] [--timeout SECONDS] [--check] TARGET -- COMMAND [ARGUMENT ...]"
    _add_dialling(_add(commands, "exec", _run_exec, usage=usage))


def _add_forward(commands: _Commands[argparse.ArgumentParser]) -> None:
    forward = _add(commands, "forward", _run_forward)
    _add_dialling(forward)
    forward.add_argument(
        "--listen",
        type=values.listen,
        default=LISTEN,
        metavar="[HOST:]PORT",
        help=f"local address; port 0 takes a free one (default: {shown(LISTEN)})",
    )
    forward.add_argument(
        "--json", action="store_true", help="print one line of JSON when ready: host, port, target, pid"
    )


def _add_dialling(command: argparse.ArgumentParser) -> None:
    command.add_argument("target", type=values.target, metavar="TARGET", help="host:port inside the VPC")
    command.add_argument(
        "--timeout",
        type=values.positive,
        default=DIAL_TIMEOUT,
        metavar="SECONDS",
        help=f"longest dial (default: {DIAL_TIMEOUT:g})",
    )
    command.add_argument(
        "--check", action="store_true", help="dial once first; if that fails, end with a status that says why"
    )


def _add_doctor(commands: _Commands[argparse.ArgumentParser]) -> None:
    doctor = _add(commands, "doctor", _run_doctor)
    doctor.add_argument(
        "target",
        type=values.target,
        nargs="?",
        metavar="TARGET",
        help="host:port inside the VPC; without one, look at gateway and bridge only",
    )
    doctor.add_argument(
        "--greet",
        choices=GREET,
        default="auto",
        help="what the target speaks (default: auto, by its port; none for no greeting)",
    )
    doctor.add_argument(
        "--timeout",
        type=values.positive,
        default=TIMEOUT,
        metavar="SECONDS",
        help=f"longest wait of one rung (default: {TIMEOUT:g})",
    )
    doctor.add_argument("--json", action="store_true", help="print one line of JSON instead (docs/doctor.md)")


def _add_local(commands: _Commands[argparse.ArgumentParser]) -> None:
    local = _add(commands, "local", _run_local, extra="local")
    _add_template(local)
    local.add_argument(
        "--target",
        action="append",
        default=[],
        type=values.target,
        metavar="HOST:PORT",
        help="a target that may be reached; may be given again",
    )
    local.add_argument("--seed", type=int, default=0, help="which faults are drawn (default: 0)")
    local.add_argument(
        "--fault",
        action="append",
        default=[],
        type=values.fault,
        metavar="NAME=VALUE",
        help="something to do wrong on purpose, a setting of emissary_local.Faults (a wrong name lists "
        "them all); may be given again",
    )
    local.add_argument(
        "--reorder", type=values.share, metavar="SHARE", help="the same as --fault reorder=SHARE"
    )
    local.add_argument(
        "--time-scale",
        type=values.positive,
        metavar="FACTOR",
        help="factor on AWS's time limits: 0.01 makes six seconds of ten minutes (default: 1)",
    )
    local.add_argument(
        "--account-concurrency",
        type=values.count,
        default=1000,
        metavar="N",
        help="Lambda executions at once, of all functions together (default: 1000)",
    )
    local.add_argument("--tls", action="store_true", help="serve wss:// with a certificate made for this run")
    local.add_argument(
        "--json", action="store_true", help="print one line of JSON when ready, one at the end"
    )


def _add_keys(commands: _Commands[argparse.ArgumentParser]) -> None:
    actions = _add_actions(commands, "keys", _run_keys)
    new = _add(actions, "keys new", _run_keys, extra="aws")
    new.add_argument(
        "--kid", type=values.key_id, metavar="ID", help="its id (default: the next above the highest)"
    )
    listing = _add(actions, "keys list", _run_keys, extra="aws")
    retire = _add(actions, "keys retire", _run_keys, extra="aws")
    retire.add_argument("kid", type=values.key_id, metavar="ID", help="the key's id")
    for action in (new, listing, retire):
        action.add_argument("--secret", required=True, metavar="ARN", help="ARN or name of the keys' secret")
        action.add_argument("--json", action="store_true", help="print one line of JSON")


def _add_sessions(commands: _Commands[argparse.ArgumentParser]) -> None:
    actions = _add_actions(commands, "sessions", _run_sessions)
    listing = _add(actions, "sessions list", _run_sessions, extra="aws")
    listing.add_argument("--alive", action="store_true", help="only those that may still carry bytes")
    listing.add_argument(
        "--all", action="store_true", help="also those that never named a target, health checks among them"
    )
    kill = _add(actions, "sessions kill", _run_sessions, extra="aws")
    kill.add_argument(
        "session",
        type=values.session,
        nargs="*",
        metavar="SESSION",
        help="id, or at least 8 digits of it",
    )
    kill.add_argument("--key", type=values.key_id, metavar="ID", help="all that are alive of this key")
    kill.add_argument("--url", metavar="URL", help="the stack's WebSocketUrl (default: EMISSARY_URL)")
    for action in (listing, kill):
        action.add_argument("--table", required=True, metavar="NAME", help="the stack's TableName")
        action.add_argument("--json", action="store_true", help="print one line of JSON")


def _add_actions(
    commands: _Commands[argparse.ArgumentParser], name: str, run: Callable[[argparse.Namespace], int]
) -> _Commands[argparse.ArgumentParser]:
    command = _add(commands, name, run, extra="aws")
    return command.add_subparsers(title="actions", dest="action", metavar="ACTION", required=True)


def _add_template(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--template",
        default="template.yaml",
        type=values.template,
        metavar="FILE",
        help="the SAM template; the functions' code is looked for beside it (default: template.yaml)",
    )


def _run_exec(arguments: argparse.Namespace) -> int:
    target, timeout = arguments.target, arguments.timeout
    with warnings_shown(sys.stderr), Dialer.from_env() as dialer:
        with listening(dialer, target, LISTEN, timeout, check=arguments.check) as address:
            return run_command(arguments.words, address, os.environ)


def _run_forward(arguments: argparse.Namespace) -> int:
    target, timeout = arguments.target, arguments.timeout
    with warnings_shown(sys.stderr), Dialer.from_env() as dialer:
        with listening(dialer, target, arguments.listen, timeout, check=arguments.check) as address:
            run_until_stopped(address, target, json_line=arguments.json, out=sys.stdout)
    return Exit.OK


def _run_doctor(arguments: argparse.Namespace) -> int:
    return run_doctor(
        arguments.target,
        environ=os.environ,
        out=sys.stdout,
        greet=arguments.greet,
        timeout=arguments.timeout,
        json_line=arguments.json,
    )


def _run_local(arguments: argparse.Namespace) -> int:
    from emissary_local.cloud import run_foreground
    from emissary_local.faults import Faults

    drawn = dict(arguments.fault)
    if arguments.reorder is not None:
        drawn["reorder"] = arguments.reorder
    return run_foreground(
        arguments.template,
        [(target.host, target.port) for target in arguments.target],
        json_line=arguments.json,
        out=sys.stdout,
        faults=Faults(seed=arguments.seed, **drawn),
        account_concurrency=arguments.account_concurrency,
        time_scale=arguments.time_scale,
        tls=arguments.tls,
    )


def _run_keys(arguments: argparse.Namespace) -> int:
    secret, json_line = arguments.secret, arguments.json
    if arguments.action == "new":
        keys.new(secret, arguments.kid, json_line=json_line, out=sys.stdout)
    elif arguments.action == "retire":
        keys.retire(secret, arguments.kid, json_line=json_line, out=sys.stdout)
    else:
        keys.list_keys(secret, json_line=json_line, out=sys.stdout)
    return Exit.OK


def _run_sessions(arguments: argparse.Namespace) -> int:
    table, json_line = arguments.table, arguments.json
    if arguments.action == "list":
        sessions.list_sessions(
            table, alive=arguments.alive, everything=arguments.all, json_line=json_line, out=sys.stdout
        )
        return Exit.OK
    url = arguments.url or {**read_env_file(Path(".env")), **os.environ}.get(URL, "")
    sessions.kill(table, arguments.session, arguments.key, url, json_line=json_line, out=sys.stdout)
    return Exit.OK


def _run_demo(arguments: argparse.Namespace) -> int:
    from tools.demo.run import run_demo

    return run_demo(arguments.template, out=sys.stdout)


def _run_bench(arguments: argparse.Namespace) -> int:
    from tools.bench.run import run_bench

    print(run_bench(arguments.template, progress=sys.stderr), flush=True)
    return Exit.OK


def _extra(error: ModuleNotFoundError, extra: str) -> str:
    return f"the package {error.name} is not installed: pip install 'emissary-lib[{extra}]'"


def _complain(error: object, status: int) -> int:
    print(f"emissary: {error}", file=sys.stderr)
    return status
