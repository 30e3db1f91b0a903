"""A VPC in this process: names that nobody else resolves, and a dial that reaches them without any bridge."""

from __future__ import annotations

import contextlib
import math
import socket
import threading
from collections.abc import Mapping

from emissary_lib.client.socket import SessionInfo
from emissary_lib.exceptions import EmissaryError, TunnelResetError, dial_error
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.stream.counters import Counters
from emissary_lib.protocol.targets.allow_list import Target
from emissary_lib.transport.deadline import Deadline
from tests.helpers.patience import HANG


class Vpc:
    """What :class:`~emissary_lib.client.socks.SocksServer` dials with.

    Args:
        hosts: Where on loopback each target is, by ``"name:port"``; no other is on the allow-list.

    Attributes:
        dialled: Every target that was asked for, in order.
        timeouts: How long each dial might take.
        errors: What dialling a target raises.
        gate: Dials wait until it is set; it is.
    """

    def __init__(self, hosts: Mapping[str, tuple[str, int]] = {}) -> None:
        self.hosts = dict(hosts)
        self.dialled: list[str] = []
        self.timeouts: list[float | None] = []
        self.errors: dict[str, EmissaryError] = {}
        self.gate = threading.Event()
        self.gate.set()

    def dial(self, target: Target, deadline: Deadline) -> Carried:
        """Reach a target."""
        self.timeouts.append(deadline.timeout)
        self.dialled.append(str(target))
        while not self.gate.wait(0.01):
            if deadline.passed():
                raise dial_error(target, Code.TARGET_TIMED_OUT)
        if error := self.errors.get(str(target)):
            raise error
        if str(target) not in self.hosts:
            raise dial_error(target, Code.TARGET_NOT_ALLOWED)
        return Carried(target, socket.create_connection(self.hosts[str(target)], HANG))


class Carried:
    """A connection to a target, carried as a tunnel carries it."""

    begin_drain = staticmethod(lambda: None)
    idle = True
    acked = progress = written = undelivered_bytes = 0
    loss_noticed_after = 0.0
    untaken = False

    def __init__(self, target: Target, sock: socket.socket) -> None:
        self.info = SessionInfo("0" * 32, target, math.inf, Counters(), lambda: (0, 0))
        self._target = sock

    def attach(self, sock: socket.socket) -> Carried:
        sock.setblocking(True)
        self._sock = sock
        return self

    def run(self) -> TunnelResetError | None:
        with self._target, self._sock:
            back = threading.Thread(target=_copy, args=(self._target, self._sock))
            back.start()
            _copy(self._sock, self._target)
            back.join(HANG)
        return None


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
