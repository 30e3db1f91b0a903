"""What a program wrote before it closed arrives, or somebody is told: whatever happens, and whenever."""

from __future__ import annotations

import logging
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emissary_lib.client import drain
from emissary_lib.client.dialer import Dialer
from emissary_lib.client.forward import Forward
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.constants import DEFAULT_CAPACITY
from tests.helpers.bridge import KEY, TARGET, Behaviour, Bridge, Relay
from tests.helpers.kinds import KINDS, Kind
from tests.helpers.patience import HANG, wait_until

#: What becomes of a dial.
DIALS: Final = ("at once", "only after the program's end", "never: refused")

#: How a program lets go of its socket, as its kernel shows it.
ENDS: Final = ("closes", "half-closes, reads, closes", "resets")

#: Bytes that every kernel buffers for a program whose dial is under way.
FEW: Final = 1000

#: Bytes that take a moment to move.
SOME: Final = 200_000

#: Bytes of which four times as many, the most that a plan has, fit what both sides of a session hold, but not
#: what the relay does.
MUCH: Final = DEFAULT_CAPACITY * 2 // 5


@dataclass(frozen=True)
class Plan:
    """A program, and what happens to its connection.

    Attributes:
        chunks: Sizes of what it writes.
        end: One of ``ENDS``.
        dial: One of ``DIALS``.
        cut_after: Bytes after which the target resets; ``None`` for never.
        resets_at_end: Whether the target resets when it has everything.
        deaf: Whether the target takes nothing.
    """

    chunks: list[int]
    end: str = "closes"
    dial: str = "at once"
    cut_after: int | None = None
    resets_at_end: bool = False
    deaf: bool = False

    @property
    def written(self) -> bytes:
        size = sum(self.chunks)
        return (bytes(range(251)) * (size // 251 + 1))[:size]


class Told(logging.Handler):
    """Everything that was said at WARNING and above."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record.getMessage())


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    dial = draw(st.sampled_from(DIALS))
    fate = draw(st.sampled_from(["well", "cut", "reset at its end", "deaf"]))
    most = FEW if dial != "at once" else SOME if fate != "deaf" else MUCH
    chunks = draw(st.lists(st.integers(1, most), max_size=4))
    if dial != "at once":
        chunks = chunks[:1]
    return Plan(
        chunks,
        draw(st.sampled_from(ENDS)),
        dial,
        cut_after=draw(st.integers(0, sum(chunks))) if fate == "cut" else None,
        resets_at_end=fate == "reset at its end",
        deaf=fate == "deaf",
    )


class Program(threading.Thread):
    """Writes and ends as planned. What it was told by an error of its socket is in ``error``."""

    def __init__(self, plan: Plan, address: tuple[str, int]) -> None:
        super().__init__(name="test-program")
        self._plan = plan
        self._sock = socket.create_connection(address, HANG)
        self.error: OSError | None = None

    def run(self) -> None:
        with self._sock as sock:
            try:
                at = 0
                for size in self._plan.chunks:
                    sock.sendall(self._plan.written[at : at + size])
                    at += size
                if self._plan.end.startswith("half") and self._plan.dial == "at once" and not self._plan.deaf:
                    sock.shutdown(socket.SHUT_WR)
                    while sock.recv(65_536):
                        pass
            except OSError as exc:
                self.error = exc
            if self._plan.end == "resets":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def carry_out(
    plan: Plan, end: Callable[[Dialer, Forward], object], kind: Kind
) -> tuple[bytes, list[str], Program]:
    """Let a program write, and ``end`` our side once it has ended; gives what arrived and what was told."""
    gate, told = threading.Event(), Told()

    def script(relay: Relay) -> None:
        relay.end_with_dialer()
        relay.reads, relay.cut_after, relay.resets_at_end = not plan.deaf, plan.cut_after, plan.resets_at_end
        assert gate.wait(HANG)

    code = Code.TARGET_REFUSED if plan.dial.startswith("never") else Code.OK
    if plan.dial != "only after the program's end":
        gate.set()
    logger = logging.getLogger("emissary_lib")
    logger.addHandler(told)
    patience = 0.2 if plan.deaf else HANG
    try:
        with mock.patch.multiple(drain, STANDSTILL=patience, RETRANSMISSION=(0.0, 0.0)):
            with Bridge(Behaviour(script=script, dial_code=code)) as bridge:
                dialer = kind.dialer(bridge.url, KEY)
                forward = dialer.forward(TARGET, timeout=HANG)
                forward.gives_up_at_end = end is not finish  # as exec has it, and everybody else
                program = Program(plan, forward.__enter__())
                program.start()
                program.join(HANG)
                ending = threading.Thread(target=end, args=(dialer, forward), name="test-ending")
                ending.start()
                if plan.dial == "only after the program's end":
                    if not may_be_given_up(plan, end):
                        wait_until(lambda: bridge.server.requests, "the dial")
                    gate.set()
                ending.join(HANG)
                assert not ending.is_alive(), "the end does not come"
                said = list(told.records)
                nowhere = kind.shared and plan.dial.startswith("never")  # a request that was refused alone
                arrived = b"" if nowhere or may_be_given_up(plan, end) else bridge.relay().arrived
                forward.stop()
                dialer.close()  # as at a program's exit: else its relay looks for a bridge that is gone
            wait_until(_no_tunnels, "the end of every tunnel")
    finally:
        logger.removeHandler(told)
    return arrived, said, program


def may_be_given_up(plan: Plan, end: object) -> bool:
    """Whether there may be no relay at all: the program has hung up, and nothing is lost with it."""
    return plan.end == "resets" or (not plan.chunks and end is not finish)


def _no_tunnels() -> bool:
    return not [thread for thread in threading.enumerate() if thread.name.startswith("emissary-")]


def finish(dialer: Dialer, forward: Forward) -> None:
    """As ``emissary exec`` ends."""
    forward.finish()


def leave_and_close(dialer: Dialer, forward: Forward) -> None:
    """As the blocks of ``with`` statements end."""
    forward.close()
    dialer.close()


def close(dialer: Dialer, forward: Forward) -> None:
    dialer.close()


@pytest.mark.parametrize("kind", KINDS, ids=str)
@settings(max_examples=40)
@given(plan=plans(), end=st.sampled_from([finish, leave_and_close, close]))
def test_what_was_written_arrives_or_somebody_is_told(
    plan: Plan, end: Callable[[Dialer, Forward], object], kind: Kind
) -> None:
    written = plan.written
    arrived, told, program = carry_out(plan, end, kind)
    assert written.startswith(arrived)
    if plan.end == "resets":
        return  # it asked its kernel to throw away what had not been sent, and that tells nobody
    if arrived != written:
        assert told or program.error
    if may_be_given_up(plan, end):
        return
    if plan.dial.startswith("never"):
        assert told
    elif not plan.deaf and plan.cut_after is None:
        assert (arrived, told) == (written, [])
