"""``emissary doctor``: where the way to a target breaks, and what to do."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Final, TextIO

from emissary_lib.doctor import render
from emissary_lib.doctor.configuration import Settings
from emissary_lib.doctor.report import Result
from emissary_lib.doctor.run import World, examine
from emissary_lib.doctor.service_probes import GREETINGS, Greeting, greeting_for
from emissary_lib.exit_status import Exit
from emissary_lib.protocol.targets.allow_list import Target
from emissary_lib.transport.websocket import proxy_of

#: What ``--greet`` takes: a protocol, none at all, or whatever the port tells.
GREET: Final = ("auto", "none", *GREETINGS)

#: Longest wait of one rung unless told otherwise, in seconds: API Gateway itself waits 29 s for $connect.
TIMEOUT: Final = 30.0


def run_doctor(
    target: Target | None,
    *,
    environ: Mapping[str, str],
    out: TextIO,
    greet: str = "auto",
    timeout: float = TIMEOUT,
    json_line: bool = False,
    env_file: str = ".env",
    world: World | None = None,
) -> Exit:
    """Walk the ladder and print the report.

    Args:
        target: What is to be reached inside the VPC; ``None`` to look at gateway and bridge only.
        environ: Where the settings stand.
        out: Where to print.
        greet: One of :data:`GREET`.
        timeout: Longest wait of one rung, in seconds.
        json_line: Print one line of JSON at the end instead of text as it comes.
        env_file: Where those settings stand that are missing in ``environ``.
        world: What to stand on; ``None`` for the real one.

    Returns:
        The exit status of the rung that broke.
    """
    settings = Settings(environ, pathlib.Path(env_file), None, proxy_of, timeout)

    def told(result: Result) -> None:
        if not json_line:
            print(render.line(result), file=out, flush=True)

    report = examine(settings, target, _greeting(greet, target), world=world, told=told)
    print(render.as_json(report) if json_line else render.summary(report), file=out, flush=True)
    return report.exit


def _greeting(greet: str, target: Target | None) -> Greeting | None:
    if greet == "auto":
        return greeting_for(target.port) if target else None
    return GREETINGS.get(greet)
