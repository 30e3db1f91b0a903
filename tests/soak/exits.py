"""Programs that write and end at once, through the real command: gone before anything has arrived."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Final

from emissary_lib.exit_status import Exit
from tests.ends.run import FAILURES, TOLD
from tests.soak.pattern import pattern
from tests.soak.stats import MismatchError
from tests.soak.target import Transfer
from tests.soak.work import HANG, Context

_ROOT: Final = Path(__file__).resolve().parents[2]

#: Writes what it has on standard input, and ends.
PROGRAM: Final = f"""
import os, socket, sys
data = sys.stdin.buffer.read()
sock = socket.create_connection((os.environ["EMISSARY_HOST"], int(os.environ["EMISSARY_PORT"])))
try:
    sock.sendall(data)
except OSError:
    os._exit({TOLD})
os._exit(0)
"""

#: Connections that share a relay: none, or some.
_KINDS: Final = ("1", "6")

#: Bytes that are written, at most what one piece of the pattern has.
_SIZES: Final = (0, 100, 200_000, 900_000)


def write_and_exit(context: Context, chance: random.Random) -> None:
    """One program: everything arrives, or the command says on standard error and by its status what is lost.

    What nobody was told of is judged in the end: the relay may hand it on while the next program runs.

    Raises:
        MismatchError: The command hangs, or its words and its status contradict each other.
    """
    transfer = Transfer(chance.randrange(1 << 62), chance.choice(_SIZES), 0, after=True)
    host, port = context.target
    program = [sys.executable, "-S", "-c", PROGRAM]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "emissary_lib", "exec", f"{host}:{port}", "--", *program],
            cwd=_ROOT,
            env={**os.environ, **context.environ, "EMISSARY_CONNECTIONS_PER_RELAY": chance.choice(_KINDS)},
            input=transfer.header() + pattern(transfer.number, 0, transfer.up),
            capture_output=True,
            timeout=4 * HANG,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise MismatchError("emissary exec hangs") from exc
    judge(context, transfer, done.returncode, done.stderr.decode(errors="replace"))


def judge(context: Context, transfer: Transfer, status: int, said: str) -> None:
    """Note what one program's command told.

    Raises:
        MismatchError: Its words and its status contradict each other.
    """
    told = bool(said) and (status in FAILURES or status == TOLD)
    if not told and (said or status != Exit.OK):
        raise MismatchError(f"emissary exec ended with {status} and said {said!r}")
    if not told:
        context.stats.unalarmed.add(transfer.number)
    else:
        context.stats.cut_off[transfer.number] = f"exec/{status}"
        context.stats.well("write_and_exit: told")
