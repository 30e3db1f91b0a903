"""What a tunnel takes of both sides' memory while nobody reads at either end."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from typing import Any, Final

import pytest

from emissary_lib.protocol.auth.keys import format_keys
from emissary_lib.protocol.constants import DEFAULT_CAPACITY
from emissary_lib.protocol.mux.limits import STREAM_WINDOW
from emissary_local import LocalCloud
from tests.helpers.local_cloud import LINUX_ONLY, ROOT
from tests.helpers.patience import HANG, wait_until
from tests.helpers.servers import Server
from tests.soak import leaks

pytestmark = LINUX_ONLY

#: Most memory, in bytes: of a dialer for one stream beyond its window; of a relay in all, half of what the
#: template gives it.
DIALER: Final = 16_000_000
RELAY: Final = 128_000_000

#: What either end writes at most, in bytes: too much to be kept by either side.
OFFERED: Final = 200_000_000

#: No more has been written for so long, in seconds: both ends have stopped.
STILL: Final = 1.0

#: A client that writes as much as it can and reads nothing. Given a line, it waits until it writes no more;
#: then it says how much it has written, and the most that this took of its memory, in bytes.
CLIENT = """
import gc
import json
import os
import sys
import threading
from emissary_lib import Dialer
from emissary_lib.client.config import ClientConfig
from pathlib import Path
from tests.helpers.patience import HANG
from tests.integration.test_memory import Pour
from tests.soak.leaks import peak_memory, resident_memory
config = ClientConfig.from_env(os.environ)
with Dialer(config.url, config.key, connections_per_relay=int(sys.argv[2])) as dialer:
    with dialer.dial(sys.argv[1], HANG) as sock:  # so that what is loaded once is not taken for the stream's
        sock.sendall(bytes(1_000_000))
    with dialer.dial(sys.argv[1], HANG) as sock:
        pour = Pour(sock, int(sys.argv[3]))
        gc.collect()
        before = resident_memory()
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew; proc(5)
        threading.Thread(target=pour.run, daemon=True).start()
        for _line in sys.stdin:
            pour.wait_until_still()
            taken = (peak_memory() - before) * 1e6
            print(json.dumps({"written": pour.written, "taken": taken}), flush=True)
"""


class Pour:
    """Writes to a socket, until it has written :data:`OFFERED` bytes or is cut off.

    Args:
        sock: Nobody reads at its other end.
        kept: Bytes that are taken all the same: the window of the tunnel.
    """

    def __init__(self, sock: socket.socket, kept: int) -> None:
        self._sock = sock
        self._kept = kept
        self.written = 0

    def run(self) -> None:
        with contextlib.suppress(OSError):
            while self.written < OFFERED:
                self.written += self._sock.send(bytes(65_536))

    def wait_until_still(self) -> None:
        wait_until(lambda: self.written > self._kept, "more bytes than a window holds")
        last, since = -1, time.monotonic()
        while time.monotonic() < since + STILL:
            if self.written != last:
                last, since = self.written, time.monotonic()
            threading.Event().wait(0.02)  # nobody tells that nothing happens


class Deaf:
    """A target that writes and does not read; its first client's bytes it reads to the end.

    Args:
        kept: As of :class:`Pour`.
    """

    def __init__(self, kept: int) -> None:
        self._kept = kept
        self.over = threading.Event()
        self.pour: Pour | None = None
        self._first = True

    def __call__(self, connection: socket.socket) -> None:
        if self._first:
            self._first = False
            while connection.recv(65_536):
                pass
            return
        self.pour = Pour(connection, self._kept)
        self.pour.run()
        self.over.wait()


def asked(client: subprocess.Popen[str]) -> Any:
    assert client.stdin is not None
    assert client.stdout is not None
    client.stdin.write("\n")
    client.stdin.flush()
    return json.loads(client.stdout.readline())


@pytest.mark.parametrize(
    ("connections", "kept"),
    [pytest.param(1, DEFAULT_CAPACITY, id="own"), pytest.param(8, STREAM_WINDOW, id="shared")],
)
def test_readers_that_stop_bound_the_memory_of_both_sides(
    cloud: LocalCloud, connections: int, kept: int
) -> None:
    deaf = Deaf(kept)
    with Server(deaf) as (host, port):
        environ = {"EMISSARY_URL": cloud.url, "EMISSARY_AUTH_KEYS": format_keys([cloud.key])}
        client = subprocess.Popen(
            [sys.executable, "-c", CLIENT, f"{host}:{port}", str(connections), str(kept)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environ},
        )
        try:
            asked(client)
            assert deaf.pour is not None
            deaf.pour.wait_until_still()  # what comes from there was perhaps in the way of the client's
            found = asked(client)
            (relay,) = leaks.relays(cloud.pid, [port])
            relays = leaks.peak_memory(relay) * 1e6
        finally:
            deaf.over.set()
            client.kill()
            client.communicate(timeout=HANG)
    assert found["taken"] < kept + DIALER
    assert relays < RELAY
    assert kept < found["written"] < OFFERED  # there was something to keep, and it was not kept
    assert kept < deaf.pour.written < OFFERED
