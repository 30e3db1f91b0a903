"""What becomes of tunnels when the interpreter exits: whole programs, run as processes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from emissary_lib.client import drain
from emissary_lib.client.drain import RETRANSMISSION, STANDSTILL
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.constants import RTO_INITIAL
from emissary_lib.protocol.role import Role
from emissary_lib.protocol.wire.frames import Flag, FrameType
from emissary_lib.protocol.wire.payloads import Ended
from tests.helpers.bridge import TARGET, Behaviour, Bridge, Relay, echo
from tests.helpers.kinds import Kind
from tests.helpers.patience import HANG, wait_until
from tests.helpers.tunnels import FakeLink, Running, send_all, session_of

#: What every program begins with; the bridge's key and target, and how long tunnels are waited for at exit.
PREAMBLE = f"""
import os, signal, socket, sys, threading
from emissary_lib import Dialer, Key
from emissary_lib.client import drain
drain.STANDSTILL, drain.RETRANSMISSION = float(sys.argv[2]), (0.0, 0.0)
dialer = Dialer(sys.argv[1], Key(7, bytes(range(32))), connections_per_relay=int(sys.argv[3]))
sock = dialer.dial({TARGET!r}, {HANG})
"""


def run(kind: Kind, bridge: Bridge, program: str, patience: float = 10 * HANG, *, told: str = "") -> None:
    """Run a program to its end.

    Args:
        kind: Of its dialer, whose relays are kept for a minute where they are shared.
        bridge: Where its tunnel leads.
        program: What it does with its tunnel.
        patience: Seconds of standstill that tunnels get at its exit. So long that a program which waits for
            them hangs.
        told: A pattern for what it says on standard error; it configures no logging.
    """
    options = ["-X", "dev", "-W", "ignore::ResourceWarning"]
    done = subprocess.run(
        [
            sys.executable,
            *options,
            "-c",
            PREAMBLE + program,
            bridge.url,
            str(patience),
            str(kind.connections),
        ],
        capture_output=True,
        timeout=HANG,
        check=False,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(told, done.stderr.strip()), done.stderr


def test_an_open_tunnel_does_not_hold_the_program(kind: Kind) -> None:
    with Bridge(Behaviour(script=echo)) as bridge:
        run(kind, bridge, "")


def test_many_open_tunnels_and_a_forward_do_not_either(kind: Kind) -> None:
    program = f"""
more = [dialer.dial({TARGET!r}) for _ in range(5)]
forward = dialer.forward({TARGET!r})
address = forward.__enter__()
through = socket.create_connection(address)
through.sendall(b"x"); through.recv(1)
"""
    with Bridge(Behaviour(script=echo)) as bridge:
        run(kind, bridge, program)


@pytest.mark.parametrize("last", ["", "sock.close()", "sock.shutdown(socket.SHUT_WR)", "del sock"])
@pytest.mark.parametrize("size", [1, 1_000_000])
def test_what_is_written_just_before_the_exit_arrives_and_then_the_end(
    last: str, size: int, kind: Kind
) -> None:
    with Bridge(Behaviour(script=lambda relay: relay.end_with_dialer())) as bridge:
        run(kind, bridge, f"sock.sendall(b'x' * {size})\n{last}")
        relay = bridge.relay()
        assert relay.read_to_end() == b"x" * size
        assert relay.aborted is None
        if kind.shared:  # nothing keeps the relay for a minute
            assert not relay.wire.session.alive


def test_a_target_that_never_ends_does_not_hold_the_program_for_ever(kind: Kind) -> None:
    with Bridge() as bridge:
        run(kind, bridge, "sock.sendall(b'x')", STANDSTILL)


#: Writes what its target, which reads nothing, leaves no room for, and says so in the log that it is given.
WRITES_TOO_MUCH = """
import logging
from tests.helpers.kinds import Kind
from tests.helpers.patience import HANG
logging.basicConfig(filename={log!r})
sock.settimeout(0.3)
try:
    while True:
        sock.sendall(b"x" * 100_000)
except TimeoutError:
    pass
"""


def deaf(relay: Relay) -> None:
    relay.reads = False


@pytest.mark.parametrize(
    ("last", "lost"),
    [("", "program exited: they are lost"), ("dialer.close()", "dialer was closed: they are")],
)
def test_bytes_that_had_not_arrived_in_time_are_a_warning(
    tmp_path: Path, last: str, lost: str, kind: Kind
) -> None:
    """Symptom: what was written to a tunnel without its link was dropped at exit, and nobody told."""
    log = tmp_path / "log"
    with Bridge(Behaviour(script=deaf)) as bridge:
        run(kind, bridge, WRITES_TOO_MUCH.format(log=str(log)) + last, STANDSTILL)
    told = log.read_text()
    count = re.search(
        rf"WARNING:emissary_lib\.tunnel:at least (\d+) bytes written to the tunnel to {TARGET}", told
    )
    assert count is not None
    assert int(count[1]) > 0
    assert lost in told


def test_without_any_logging_it_is_said_on_standard_error(kind: Kind) -> None:
    """Symptom: the library's own handler that does nothing kept Python from printing what was lost."""
    fills = WRITES_TOO_MUCH.replace("logging.basicConfig(filename={log!r})", "")
    with Bridge(Behaviour(script=deaf)) as bridge:
        told = rf"at least \d+ bytes written to the tunnel to {TARGET} .*the program exited: they are lost.*"
        run(kind, bridge, fills, STANDSTILL, told=told)


def test_what_a_target_loses_after_the_program_has_closed_its_socket_is_said(kind: Kind) -> None:
    program = """
try:
    sock.sendall(b"x" * 500_000)
except ConnectionError:  # or it is told already
    pass
sock.close()
while drain._open:
    pass
"""

    def resets(relay: Relay) -> None:
        relay.cut_after = 100_000

    with Bridge(Behaviour(script=resets)) as bridge:
        run(kind, bridge, program, told=r"the tunnel to .* was cut off: .*\d+ bytes .* did not arrive")


class Moving:
    """A tunnel on a clock of its own, whose bytes move for so many seconds."""

    untaken = False
    written = 1_000_000
    idle = False
    loss_noticed_after = 1.0

    def __init__(self, seconds: float, *, missing: int = 1) -> None:
        self.now = 0.0
        self._seconds = seconds
        self.undelivered_bytes = missing

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def begin_drain(self) -> None: ...

    @property
    def acked(self) -> int:
        return int(min(self.now, self._seconds))  # a byte a second: slower than that is a standstill

    progress = acked


@pytest.mark.parametrize("seconds", [0, 1, 60, 3600])
def test_bytes_are_waited_for_as_long_as_they_move(monkeypatch: pytest.MonkeyPatch, seconds: int) -> None:
    """Symptom: a normal exit cut off after two seconds what would have arrived in three."""
    tunnel = Moving(seconds)
    wait_in_its_time(tunnel, monkeypatch)
    assert tunnel.now == pytest.approx(seconds + STANDSTILL + RETRANSMISSION[0], abs=0.1)


def wait_in_its_time(
    tunnel: Moving,
    monkeypatch: pytest.MonkeyPatch,
    wait: Callable[[object], object] = drain.wait_until_idle,
    *,
    unseen: int | None = None,
) -> None:
    monkeypatch.setattr(drain, "time", tunnel)
    connection = drain.begin(TARGET, (tunnel,), unseen=unseen)
    connection.carry(tunnel)
    try:
        wait(tunnel)
    finally:
        drain.end(connection)


def test_a_message_that_was_lost_is_waited_for_until_it_is_sent_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Symptom: on a busy machine, an alarm for bytes that arrived when they were sent again, after 3 s."""

    class SentAgain(Moving):
        @property
        def acked(self) -> int:
            return self.written if self.now >= RTO_INITIAL + 1 else 0

        progress = acked

    tunnel = SentAgain(0)
    wait_in_its_time(tunnel, monkeypatch, unseen=0)
    assert tunnel.now == pytest.approx(RTO_INITIAL + 1, abs=0.1)


def test_a_target_s_end_alone_is_waited_for_less_long(monkeypatch: pytest.MonkeyPatch) -> None:
    tunnel = Moving(0, missing=0)
    wait_in_its_time(tunnel, monkeypatch)
    assert tunnel.now == pytest.approx(STANDSTILL, abs=0.1)


@pytest.mark.parametrize(("missing", "patience"), [(0, STANDSTILL), (1, STANDSTILL + RETRANSMISSION[0])])
def test_what_stands_still_is_not_waited_for_twice(
    monkeypatch: pytest.MonkeyPatch, missing: int, patience: float
) -> None:
    """Symptom: with a dead link, an exit waited once before the stream's end was sent and once behind it."""
    tunnel = Moving(0, missing=missing)
    wait_in_its_time(tunnel, monkeypatch, drain.finish)
    assert tunnel.now == pytest.approx(patience, abs=0.1)


@pytest.mark.parametrize(("noticed_after", "standstill"), [(1, 5), (7, 9), (60, 20)])
def test_a_tunnel_that_is_slow_to_notice_a_loss_is_given_time_to_send_again(
    monkeypatch: pytest.MonkeyPatch, noticed_after: float, standstill: float
) -> None:
    """Symptom: behind a dial that took three seconds, one lost message at a program's end lost its bytes."""
    tunnel = Moving(0)
    tunnel.loss_noticed_after = noticed_after
    monkeypatch.setattr(drain, "time", tunnel)
    connection = drain.begin(TARGET, (tunnel,))
    connection.carry(tunnel)
    try:
        drain.wait_until_idle(tunnel)
    finally:
        drain.end(connection)
    assert tunnel.now == pytest.approx(standstill, abs=0.1)


def test_who_writes_on_and_on_is_waited_for_only_as_far_as_had_been_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tunnel = Moving(10_000_000)
    tunnel.written = 30
    wait_in_its_time(tunnel, monkeypatch, unseen=10)
    assert tunnel.now == pytest.approx(40, abs=0.1)


def test_a_tunnel_that_has_ended_well_lacks_nothing_though_its_driver_is_at_work_yet(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Symptom: a warning, and status 9 of connect and exec, behind programs that had lost nothing."""
    link = FakeLink()
    dialer = Running(session_of(Role.DIALER), link)
    connection = drain.begin(TARGET, (link,))
    connection.carry(dialer.tunnel)
    with dialer.user as user:
        send_all(user, b"question")
        wait_until(lambda: dialer.session.sent == len(b"question") + 1, "all is sent, the end too")
        link.give(FrameType.DATA, b"answer", flags=Flag.FIN, ack=len(b"question"))
        link.give(FrameType.ENDED, Ended(Code.OK, len(b"question") + 1, len(b"answer") + 1).encode())
        wait_until(lambda: dialer.tunnel.idle, "the end is told")
        assert not drain.finish(link)
    assert caplog.records == []
    dialer.join()


def test_an_accepted_connection_is_dialled_to_its_end_at_the_interpreter_s_exit(kind: Kind) -> None:
    program = f"""
sock.close()
address = dialer.forward({TARGET!r}, timeout=60).__enter__()
with socket.create_connection(address) as through:
    through.sendall(b"hello")
"""
    with Bridge(Behaviour(script=lambda relay: relay.end_with_dialer())) as bridge:
        run(kind, bridge, program)
        assert bridge.relay(1).read_to_end() == b"hello"


def test_what_has_arrived_is_no_warning_though_the_target_never_ends(tmp_path: Path, kind: Kind) -> None:
    log = tmp_path / "log"
    with Bridge() as bridge:
        program = f"import logging; logging.basicConfig(filename={str(log)!r}); sock.sendall(b'x')"
        run(kind, bridge, program, 2 * STANDSTILL)
    assert log.read_text() == ""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows does not fork")
def test_a_forked_child_exits_at_once_and_leaves_the_tunnel_to_its_parent(kind: Kind) -> None:
    program = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads, which is what this is about
pid = os.fork()
if pid == 0:
    sys.exit(7)
_pid, status = os.waitpid(pid, 0)
assert os.waitstatus_to_exitcode(status) == 7
sock.sendall(b"still mine")
assert sock.recv(100) == b"still mine"
"""
    with Bridge(Behaviour(script=echo)) as bridge:
        run(kind, bridge, program)


@pytest.mark.skipif(not hasattr(signal, "SIGPIPE"), reason="Windows has no SIGPIPE")
def test_closing_a_socket_does_not_kill_a_program_that_takes_sigpipe_as_it_comes(kind: Kind) -> None:
    program = """
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
sock.sendall(b"x" * 500_000)
sock.close()
while drain._open:
    pass
"""
    with Bridge(Behaviour(script=echo)) as bridge:
        run(kind, bridge, program, told=".*that the program had written did not arrive|")
