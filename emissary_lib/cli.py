"""The ``emissary`` command: arguments and exit statuses, no logic."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from emissary_lib._version import __version__
from emissary_lib.exceptions import ConfigError, EmissaryError
from emissary_lib.exit_status import MEANINGS, Exit, exit_status
from emissary_lib.protocol.targets import Target

EXIT_STATUSES: Final = "exit status:\n" + "".join(
    f"  {status.value:<4} {meaning}\n" for status, meaning in MEANINGS.items()
)

_LOCAL: Final = """\
Run the whole stack of a SAM template on this machine: API Gateway's WebSocket API, Lambda, DynamoDB, each as
strict as AWS. It prints the settings to dial with, and at the end what AWS would have billed. Linux only.
"""

_LOCAL_EXAMPLES: Final = """\
examples:
  emissary local --target 127.0.0.1:5432
  emissary local --target 127.0.0.1:5432 --seed 7 --reorder 0.3
  emissary local --target 127.0.0.1:5432 --json
"""

_DEMO: Final = """\
Start the local cloud and a PostgreSQL, apply an Alembic history through a tunnel, read it back, COPY 20 MB
each way, and verify all of it on the database directly. Takes about ten seconds. Linux only.
"""

_DEMO_EXAMPLES: Final = """\
examples:
  emissary demo
  emissary demo --template deploy/template.yaml
"""

_BENCH: Final = """\
Measure dial time, round trip, throughput each way and the CPU time of idle tunnels through the local cloud,
and the same over a direct connection. Prints one line of JSON on standard output; progress goes to standard
error. Takes about a minute. Linux only.
"""

_BENCH_EXAMPLES: Final = """\
examples:
  emissary bench
  emissary bench > before.json
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Arguments without the program's name; ``None`` for those of the process.

    Returns:
        The exit status, one of :data:`EXIT_STATUSES`.

    Raises:
        SystemExit: By argparse: after ``--help`` and ``--version``, and with status 2 on wrong usage.
    """
    arguments = parser().parse_args(argv)
    command: Callable[[argparse.Namespace], int] = arguments.command
    try:
        return command(arguments)
    except ModuleNotFoundError as error:
        return _complain(_extra(error, arguments.extra), exit_status(error))
    except EmissaryError as error:
        return _complain(error, exit_status(error))
    except KeyboardInterrupt as error:
        return _complain("interrupted", exit_status(error))


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    top = argparse.ArgumentParser(
        prog="emissary",
        description="Reach databases inside a private VPC through API Gateway and Lambda.",
        epilog="Each command explains itself: emissary COMMAND --help\n\n" + EXIT_STATUSES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"emissary {__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)

    local = _add(commands, "local", "run the stack on this machine", _LOCAL, _LOCAL_EXAMPLES, "local")
    local.set_defaults(command=_run_local)
    local.add_argument(
        "--target",
        action="append",
        default=[],
        type=_target,
        metavar="HOST:PORT",
        help="a target that may be reached; may be given again",
    )
    local.add_argument("--seed", type=int, default=0, help="which faults are drawn (default: 0)")
    local.add_argument(
        "--reorder",
        type=_share,
        default=0.0,
        metavar="SHARE",
        help="share of the messages that are overtaken by later ones, 0 to 1 (default: 0)",
    )
    local.add_argument(
        "--account-concurrency",
        type=_count,
        default=1000,
        metavar="N",
        help="Lambda executions at once, of all functions together (default: 1000)",
    )
    local.add_argument("--tls", action="store_true", help="serve wss:// with a certificate made for this run")
    local.add_argument(
        "--json", action="store_true", help="print one line of JSON when ready, one at the end"
    )

    demo = _add(commands, "demo", "migrate a real database and verify it", _DEMO, _DEMO_EXAMPLES, "demo")
    demo.set_defaults(command=_run_demo)
    bench = _add(commands, "bench", "measure, as one line of JSON", _BENCH, _BENCH_EXAMPLES, "local")
    bench.set_defaults(command=_run_bench)
    return top


def _add(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    summary: str,
    description: str,
    examples: str,
    extra: str,
) -> argparse.ArgumentParser:
    command = commands.add_parser(
        name,
        help=summary,
        description=description,
        epilog=f"{examples}\n{EXIT_STATUSES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(extra=extra)
    command.add_argument(
        "--template",
        default="template.yaml",
        type=_template,
        metavar="FILE",
        help="the SAM template; the functions' code is looked for beside it (default: template.yaml)",
    )
    return command


def _run_local(arguments: argparse.Namespace) -> int:
    from emissary_lib.local.cloud import run_foreground
    from emissary_lib.local.faults import Faults

    return run_foreground(
        arguments.template,
        arguments.target,
        json_line=arguments.json,
        out=sys.stdout,
        faults=Faults(seed=arguments.seed, reorder=arguments.reorder),
        account_concurrency=arguments.account_concurrency,
        tls=arguments.tls,
    )


def _run_demo(arguments: argparse.Namespace) -> int:
    from emissary_lib.demo.run import run_demo

    return run_demo(arguments.template, out=sys.stdout)


def _run_bench(arguments: argparse.Namespace) -> int:
    from emissary_lib.bench.run import run_bench

    print(run_bench(arguments.template, progress=sys.stderr), flush=True)
    return Exit.OK


def _template(text: str) -> str:
    if not Path(text).is_file():
        raise argparse.ArgumentTypeError(
            f"there is no {text} here: run this from the project's folder, or name the file"
        )
    return text


def _target(text: str) -> tuple[str, int]:
    try:
        target = Target.parse(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return target.host, target.port


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return value


def _extra(error: ModuleNotFoundError, extra: str) -> str:
    return f"the package {error.name} is not installed: pip install 'emissary-lib[{extra}]'"


def _complain(error: object, status: int) -> int:
    print(f"emissary: {error}", file=sys.stderr)
    return status
