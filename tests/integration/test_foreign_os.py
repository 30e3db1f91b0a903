"""Library and command in a process without what Windows' Python lacks; the cloud is an ordinary one."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from emissary_local import LocalCloud
from tests.helpers.foreign_os import hidden_from
from tests.helpers.local_cloud import DIAL, ROOT
from tests.helpers.patience import HANG

#: Both ways to a target: by each, every byte goes there and back, and so does the end.
DIALS_AND_FORWARDS = """
import os, socket, sys, threading
from emissary_lib import Dialer
assert not hasattr(os, "fork"), "nothing is hidden"
target, data = sys.argv[1], os.urandom(300_000)

def round_trip(sock):
    def send():
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
    sender = threading.Thread(target=send)
    sender.start()
    got = b"".join(iter(lambda: sock.recv(65_536), b""))
    sender.join()
    assert got == data, (len(got), len(data))

with Dialer.from_env() as dialer:
    with dialer.dial(target, 60) as sock:
        round_trip(sock)
    with dialer.forward(target, timeout=60) as address, socket.create_connection(address) as sock:
        round_trip(sock)
"""

#: A program of exec's: it says something, hears the same, and has a status of its own.
PROGRAM = """
import socket, sys
with socket.create_connection((sys.argv[1], sys.argv[2])) as sock:
    sock.sendall(b"there and back")
    sock.shutdown(socket.SHUT_WR)
    print(sock.makefile("rb").read().decode())
sys.exit(7)
"""


@pytest.mark.parametrize("how", ["library", "command"])
def test_it_dials_forwards_and_runs_programs(cloud: LocalCloud, target: tuple[str, int], how: str) -> None:
    name = f"{target[0]}:{target[1]}"
    words = {
        "library": ["-c", DIALS_AND_FORWARDS, name],
        "command": [
            *("-m", "emissary_lib", "exec", "--timeout", f"{DIAL:g}", name, "--"),
            *(sys.executable, "-c", PROGRAM, "{host}", "{port}"),
        ],
    }
    done = subprocess.run(
        [sys.executable, *words[how]],
        cwd=ROOT,
        env={**hidden_from(os.environ), **cloud.application.client_variables(cloud.url)},
        capture_output=True,
        text=True,
        timeout=2 * HANG,
        check=False,
    )
    expected = {"library": (0, "", ""), "command": (7, "there and back\n", "")}
    assert (done.returncode, done.stdout, done.stderr) == expected[how]
