"""``emissary exec``: a program run with local ports that lead to targets, for as long as it runs."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from emissary_lib.cli.command import let_options_stand_between, target
from emissary_lib.cli.dialling import LISTEN, add_dialling, format_address, listen_all
from emissary_lib.cli.output import complain
from emissary_lib.cli.signals import handle_signals, heeded
from emissary_lib.exit_status import DIALLING, Exit, exit_status, is_signalled
from emissary_lib.system import signals

if TYPE_CHECKING:  # loaded where it is used: --help must not wait for it
    from emissary_lib.cli.program_environment import Service
    from emissary_lib.cli.service_url import LocalPort
    from emissary_lib.protocol.targets.allow_list import Target

SUMMARY: Final = "run a program with a local port that leads to a target"
DESCRIPTION: Final = """\
Run a program that connects to the target, or to several, through local ports, which exist for as long as it
runs. Each connection becomes a tunnel of its own; one that fails is reported on standard error.

How the program gets the address:
  {host} {port}               in its arguments; {host2} {port2} of the second target, and so on: a number that
                              no target has is an error, any other word in braces stays
  EMISSARY_HOST, EMISSARY_PORT
                              in its environment; EMISSARY_HOST_2, EMISSARY_PORT_2 of the second, and so on,
                              and by name: EMISSARY_DB_INTERNAL_5432_HOST, EMISSARY_DB_INTERNAL_5432_PORT
  PGHOST, PGHOSTADDR, PGPORT  the first PostgreSQL (port 5432, or --as postgres): PGHOST has the target's
                              name, so that plain `psql` with sslmode=verify-full verifies it
  MYSQL_HOST, MYSQL_TCP_PORT  the first MySQL (3306, --as mysql); MYSQL_PORT, too, if it is set to a number
  REDIS_URL                   the first Redis (6379, --as redis)
  DATABASE_URL, REDIS_URL     set already, and of a target: the same with other host and port. If the name is
                              to be verified (sslmode=verify-full), it stays, and hostaddr has the address
PGHOSTADDR goes before any host that the program gives libpq, and only libpq knows it: for a program that
reaches other PostgreSQL servers as well, or reads PGHOST without libpq (asyncpg, pgx, node-postgres), take
--no-env and the variables above. It is not set, and PGHOST is the local address, where DATABASE_URL names
another server or PGSERVICE is set. What leads to our own key (EMISSARY_AUTH_KEYS and the like) is taken away.

The program is in our process group, with our terminal, standard input, output and error, as under `env`. It
gets each signal once: one sent to the group (Ctrl-C, Ctrl-Z, systemd, timeout) from whoever sent it; one that
was sent to us alone is passed on within a fifth of a second. A signal that was ignored at the start (nohup)
stays ignored. If the program stops, we stop, and its tunnels stand still meanwhile.

Its exit status is passed back, once what it wrote before it ended was passed on. If it ends with 0 though a
connection of its own was not dialled, the status is that of the dial; 9 if bytes that it wrote were lost. If
it ends, by no signal, and nothing has connected to a port, that is said on standard error.

EMISSARY_URL and EMISSARY_AUTH_KEYS, in the environment or in .env, say where to dial and with which key.
"""
EPILOG: Final = """\
examples:
  emissary exec db.internal:5432 -- psql -U app app
  emissary exec db.internal:5432 -- alembic -x host={host} -x port={port} upgrade head
  emissary exec --check db.internal:3306 -- sh -c 'mysql -h $EMISSARY_HOST -P $EMISSARY_PORT -u app app'
  emissary exec db.internal:6543 --as postgres -- pg_dump -U app -f app.sql app
  emissary exec db.internal:5432 cache.internal:6379 -- ./manage.py migrate
"""
EXITS: Final = DIALLING | {Exit.CUT_OFF, Exit.PORT, Exit.NOT_STARTED}

#: What stands for the address of the target with a number.
_NUMBERED: Final = re.compile(r"(\{(?:host|port)(\d{1,9})\})")

#: Signals that end the wait for what the program wrote.
_STOPS: Final = signals("SIGINT", "SIGTERM", "SIGHUP")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare its options and arguments."""
    parser.usage = (
        f"{parser.prog} [-h] [--timeout SECONDS] [--check] [--env-file FILE] [--as SERVICE | --no-env] "
        "TARGET [TARGET ...] -- COMMAND [ARGUMENT ...]"
    )
    parser.add_argument("targets", type=_target, nargs="+", metavar="TARGET", help="host:port inside the VPC")
    add_dialling(parser)
    for_clients = parser.add_mutually_exclusive_group()
    for_clients.add_argument(
        "--as",
        dest="services",
        type=_service,
        action="append",
        default=[],
        metavar="SERVICE",
        help="what the target is, whatever its port: postgres, mysql or redis; once for each, in their order",
    )
    for_clients.add_argument(
        "--no-env", action="store_true", help="set no variables but EMISSARY_*, and rewrite no URL"
    )
    let_options_stand_between(parser)


def run(args: argparse.Namespace) -> int:
    """Listen for as long as the program runs."""
    from emissary_lib.cli.program import run_program
    from emissary_lib.cli.program_environment import program_environment, service_of
    from emissary_lib.cli.service_url import LocalPort

    _check_usage(args)
    services = args.services + [service_of(each) for each in args.targets[len(args.services) :]]
    outcome = Outcome()
    stops: list[int] = []
    # As long as the program runs, its signals are passed on; from then on they end our wait.
    with (
        listen_all(args, [(each, LISTEN) for each in args.targets]) as addresses,
        handle_signals(lambda number, _frame: stops.append(number), *heeded(_STOPS)),
    ):
        for address in addresses:
            address.forward.on_failure = outcome.note
            address.forward.gives_up_at_end = False  # the status is to say what became of each connection
        ports = [LocalPort(each, *address) for each, address in zip(args.targets, addresses, strict=True)]
        environ = program_environment(os.environ, ports, services, for_clients=not args.no_env)
        status = run_program(fill_placeholders(args.words, ports), environ)
        lost = [address.forward.finish(stopped=lambda: bool(stops)) for address in addresses]
        unused = [number for number, address in enumerate(addresses) if not address.forward.accepted]
    if not is_signalled(status):  # who interrupts it knows why it has not got there
        for number in unused:
            complain(nothing_connected(number + 1, ports[number], None if args.no_env else services[number]))
    return outcome.status(status, lost=any(lost))


def _target(text: str) -> Target:
    try:
        return target(text)
    except argparse.ArgumentTypeError as exc:
        raise argparse.ArgumentTypeError(f"{exc} (the command to run stands behind --)") from exc


def _service(text: str) -> Service:
    """``postgres``, ``mysql`` or ``redis``."""
    from emissary_lib.cli.program_environment import Service

    try:
        return Service(text)
    except ValueError:
        names = ", ".join(service.value for service in Service)
        raise argparse.ArgumentTypeError(f"{text!r} is none of {names}") from None


def _check_usage(args: argparse.Namespace) -> None:
    if not args.words:
        args.parser.error("name the command to run behind --, as in: emissary exec db.internal:5432 -- psql")
    if not args.words[0].strip():
        args.parser.error("the command behind -- is an empty word; is a variable not set?")
    if len(args.services) > len(args.targets):
        args.parser.error("argument --as: there are more of them than targets")
    for number, each in enumerate(args.targets):
        if each in args.targets[:number]:
            args.parser.error(f"argument TARGET: {each} is named twice")
    for placeholder, number in _NUMBERED.findall(" ".join(args.words)):
        if not 1 <= int(number) <= len(args.targets):
            there = (
                "there is one target" if len(args.targets) == 1 else f"there are {len(args.targets)} targets"
            )
            args.parser.error(f"{placeholder} stands for a target that was not named; {there}")


def nothing_connected(number: int, port: LocalPort, service: Service | None) -> str:
    """What to say of a program that has ended without a connection to a port.

    Args:
        number: Of the target, from 1.
        port: What nobody has connected to.
        service: Whose variables the program was given beside ours.
    """
    from emissary_lib.cli.program_environment import HOST, PORT, VARIABLES, numbered

    suffix, variables = ("", (HOST, PORT)) if number == 1 else (str(number), numbered(number))
    names = ", ".join((*variables, *(VARIABLES[service] if service else ())))
    return (
        f"nothing connected to {format_address((port.host, port.port))}, which leads to {port.target}: give "
        f"the program the address by {{host{suffix}}} and {{port{suffix}}} in its arguments, or let it read "
        f"{names} from its environment"
    )


class Outcome:
    """What became of a program's connections, and what ``exec`` makes of it.

    Thread safety: :meth:`note` from any thread.
    """

    def __init__(self) -> None:
        self._undialled: Exception | None = None
        self._lost = False
        self._harmless: list[Exception] = []

    def note(self, error: Exception) -> None:
        """A connection failed; unless it did no harm, that was reported."""
        from emissary_lib.exceptions import TunnelResetError

        if not isinstance(error, TunnelResetError):
            self._undialled = self._undialled or error
        elif error.whole:
            self._harmless.append(error)
        else:
            self._lost = self._lost or error.lost > 0 or error.untaken

    def status(self, program: int, *, lost: bool) -> int:
        """The exit status.

        Args:
            program: The program's own; any but 0 is kept.
            lost: Whether bytes of its were lost at its end.
        """
        if program:
            for error in self._harmless:
                complain(f"a forwarded connection failed: {error}")  # may explain the program's failure
            return program
        if self._undialled:
            return exit_status(self._undialled)
        return Exit.CUT_OFF if lost or self._lost else Exit.OK


def fill_placeholders(words: Sequence[str], ports: Sequence[LocalPort]) -> list[str]:
    """The words with ``{host}``, ``{port}``, ``{host1}``, ``{port1}``, ... replaced; other braces stay."""
    values = {"{host}": ports[0].host, "{port}": str(ports[0].port)}
    for number, port in enumerate(ports, start=1):
        values |= {f"{{host{number}}}": port.host, f"{{port{number}}}": str(port.port)}
    placeholder = re.compile("|".join(map(re.escape, values)))
    return [placeholder.sub(lambda match: values[match[0]], word) for word in words]
