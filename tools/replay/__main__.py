"""``python -m tools.replay``: replay cases, here or in SAM's containers; or print an event that is of now."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Final

from emissary_lib.protocol.errors import EmissaryError
from emissary_local.errors import LocalCloudError
from tools.replay import cases
from tools.replay.errors import ReplayError
from tools.replay.moment import Moment
from tools.replay.results import difference
from tools.replay.run import Replayer
from tools.replay.sam import SamReplayer

ROOT: Final = Path(__file__).resolve().parents[2]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.replay", description="Replay events/.")
    commands = parser.add_subparsers(dest="command", required=True)
    event = commands.add_parser("event", help="print an event with its date and MACs of now")
    event.add_argument("name", choices=cases.names(), metavar="NAME", help="of a file in events/")
    run = commands.add_parser("run", help="replay cases against the built artifacts")
    run.add_argument("names", nargs="*", metavar="NAME", help="of files in events/; none: all")
    run.add_argument("--record", action="store_true", help="write down what they do, instead of comparing")
    sam = commands.add_parser("sam", help="replay cases in the containers of sam local invoke")
    sam.add_argument("names", nargs="*", metavar="NAME", help="of files in events/; none: all")
    sam.add_argument(
        "--listen", default="172.17.0.1", metavar="ADDRESS",
        help="address of this machine that containers reach (default: Docker's own on Linux, 172.17.0.1)",
    )  # fmt: skip
    for command in (run, sam):
        command.add_argument("--artifacts", type=Path, default=ROOT / ".aws-sam" / "build")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 1 for a difference, 2 if it could not be done."""
    given = parser().parse_args(arguments)
    try:
        if given.command == "event":
            print(cases.text_of(Moment(time.time()).to_present(cases.load(given.name).event)), end="")
            return 0
        if given.command == "sam":
            with SamReplayer(ROOT / "template.yaml", given.artifacts, listen=given.listen) as replayer:
                return replay(given.names or cases.names(), replayer)
        with Replayer(ROOT / "template.yaml", given.artifacts) as replayer:
            return replay(given.names or cases.names(), replayer, record=given.record)
    except (ReplayError, EmissaryError, LocalCloudError) as exc:
        print(f"replay: {exc}", file=sys.stderr)
        return 2


def replay(names: list[str], replayer: Replayer, *, record: bool = False) -> int:
    """Replay cases and print what differs; the exit status."""
    differing = 0
    for name in names:
        case = cases.load(name)
        got = replayer.replay(case)
        if record:
            cases.record(name, got)
        text = "" if record else difference(name, case.expected, got)
        differing += bool(text)
        print(f"{'DIFFERS' if text else 'recorded' if record else 'ok':8} {name:28} {case.about}")
        print(text, end="", flush=True)
    print(f"{len(names)} cases, {differing} differing")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
