"""What the tests of cuts, losses and ends share: a stack with short times, and a transfer that is watched."""

from __future__ import annotations

import hashlib
import itertools
import pathlib
import random
import re
import socket
import threading
from typing import Final

from emissary_local import LocalCloud
from tests.helpers.local_cloud import ROOT, TEMPLATE
from tests.helpers.patience import wait_until

BLOCK: Final = 65_536

#: Whose WebSocket is cut, and how.
CUT_WAYS: Final = list(itertools.product(("dialer", "relay", "both"), ("close", "reset", "mid-frame")))


def edited_template(
    directory: pathlib.Path, *, timeout: float | None = None, **seconds: float
) -> pathlib.Path:
    """The template with another limit on the relay's run, and other ``EMISSARY_<NAME>_SECONDS`` for it.

    Args:
        directory: Where to write it.
        timeout: The relay function's ``Timeout``.
        seconds: ``grace``, ``ping``, ``pong``, ``probe``.
    """
    text = TEMPLATE.read_text(encoding="utf-8").replace("CodeUri: .\n", f"CodeUri: {ROOT}\n")
    if timeout is not None:
        text, count = re.subn(r"Timeout: !Ref RelayTimeout\b", f"Timeout: {timeout:g}", text)
        assert count == 1
    for name in seconds:
        text = re.sub(rf"^ +EMISSARY_{name.upper()}_SECONDS: .*\n", "", text, flags=re.MULTILINE)
    values = "".join(
        f'\\g<1>EMISSARY_{name.upper()}_SECONDS: "{value:g}"\n' for name, value in seconds.items()
    )
    text, count = re.subn(r"^( +)(?=EMISSARY_DNS_SERVERS: )", f"{values}\\1", text, flags=re.MULTILINE)
    assert count == 1
    path = directory / "template.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def cut(cloud: LocalCloud, side: str, how: str) -> None:
    """Cut one session's connections. The other side may be about to come back from its last cut."""
    wait_until(lambda: cloud.cut(side, how, -1), f"a connection of the {side} to cut")


class Stream:
    """Endless bytes that are sent until they are told to end; both ends count and hash.

    Attributes:
        sent: Digest of what was sent; complete once the sender has ended.
        received: Bytes that arrived.
        failure: What an end met instead of the clean end of the stream.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._end = threading.Event()
        self._sent = hashlib.sha256()
        self._heard = hashlib.sha256()
        self.received = 0
        self.size = 0
        self.failure: OSError | None = None
        self.done = threading.Event()

    def send(self, sock: socket.socket) -> None:
        """Send until :meth:`end`; then half-close."""
        try:
            while not self._end.is_set():
                block = self._random.randbytes(BLOCK)
                sock.sendall(block)
                self._sent.update(block)
                self.size += len(block)
            sock.shutdown(socket.SHUT_WR)
        except OSError as exc:
            self.failure = exc

    def receive(self, sock: socket.socket) -> None:
        """Read to the end."""
        try:
            while block := sock.recv(4 * BLOCK):
                self._heard.update(block)
                self.received += len(block)
        except OSError as exc:
            self.failure = exc
        self.done.set()

    def end(self) -> None:
        """Let the sender come to its end."""
        self._end.set()

    @property
    def identical(self) -> bool:
        """Whether what was heard is what was sent, in full."""
        return self.received == self.size and self._heard.digest() == self._sent.digest()

    def wait_for_more(self, count: int) -> None:
        """Wait until ``count`` more bytes have arrived; an error of either end is raised here."""
        goal = self.received + count

        def arrived() -> bool:
            if self.failure is not None:
                raise self.failure
            return self.received >= goal

        wait_until(arrived, f"{count} more bytes")
