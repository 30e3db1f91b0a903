"""``emissary exec`` and what its program wrote: it arrives, or the status and standard error tell."""

from __future__ import annotations

import os
import pathlib
import re
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from emissary_lib.exit_status import Exit
from emissary_lib.protocol.auth.keys import format_keys
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.wire.frames import FrameType
from emissary_lib.protocol.wire.payloads import Ended
from tests.helpers.bridge import KEY, TARGET, Behaviour, Bridge, Relay
from tests.helpers.patience import HANG, wait_until
from tests.helpers.processes import children

ROOT = pathlib.Path(__file__).resolve().parents[3]

#: Connects, writes as many bytes as it is told, and goes on in the way that it is told.
PROGRAM = """
import os, signal, socket, sys
sock = socket.create_connection((os.environ["EMISSARY_HOST"], int(os.environ["EMISSARY_PORT"])))
sock.sendall(b"x" * int(sys.argv[1]))
exec(sys.argv[2])
"""

KILLED = 128 + signal.SIGKILL

#: How a program ends, and with which status.
ENDS = {
    "it closes": ("sock.close()", 0),
    "it half-closes": ("sock.shutdown(socket.SHUT_WR)", 0),
    "it just ends": ("", 0),
    "sys.exit": ("sys.exit(3)", 3),
    "it raises": ("sys.excepthook = lambda *args: None; raise ValueError", 1),
    "SIGKILL": ("os.kill(os.getpid(), signal.SIGKILL)", KILLED),
    "os._exit": ("os._exit(0)", 0),
}


def start(bridge: Bridge, size: int, last: str = "sock.close()") -> subprocess.Popen[str]:
    words = [sys.executable, "-S", "-c", PROGRAM, str(size), last]
    return subprocess.Popen(
        [sys.executable, "-m", "emissary_lib", "exec", TARGET, f"--timeout={HANG:g}", "--", *words],
        cwd=ROOT,
        env={**os.environ, "EMISSARY_URL": bridge.url, "EMISSARY_AUTH_KEYS": format_keys([KEY])},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(bridge: Bridge, size: int, last: str = "sock.close()") -> tuple[int, str]:
    """Run such a program; gives the status and what was said on standard error."""
    with start(bridge, size, last) as running:
        _out, err = running.communicate(timeout=HANG)
    return running.returncode, err


def takes_all(relay: Relay) -> None:
    relay.end_with_dialer()


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("size", [0, 5, 1_000_000])
def test_what_a_program_wrote_before_it_ended_arrives(end: str, size: int) -> None:
    """Symptom: nothing arrived of a program that was done before its dial, and the status was 0."""
    last, status = ENDS[end]
    with Bridge(Behaviour(script=takes_all)) as bridge:
        assert run(bridge, size, last) == (status, "")
        assert bridge.relay().arrived == b"x" * size


@pytest.mark.parametrize("size", [0, 5])
@pytest.mark.parametrize(("last", "status"), [("sock.close()", Exit.REFUSED), ("os._exit(7)", 7)])
def test_a_dial_that_fails_is_the_status_unless_the_program_failed(last: str, status: int, size: int) -> None:
    """A program that only looks whether the port is open (nc -z) is told as well."""
    with Bridge(Behaviour(dial_code=Code.TARGET_REFUSED)) as bridge:
        got, err = run(bridge, size, last)
    assert got == status
    assert err.startswith(f"emissary: a forwarded connection failed: cannot reach {TARGET}: the host refused")


def deaf(relay: Relay) -> None:
    relay.reads = False


def resets(relay: Relay) -> None:
    relay.cut_after = 50_000


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (
            deaf,
            rf"at least \d+ bytes written to the tunnel to {TARGET} had not arrived when the program",
        ),
        (resets, rf"a forwarded connection failed: the tunnel to {TARGET} was cut off: .*\d+ bytes"),
    ],
    ids=["a target that takes nothing", "a target that resets"],
)
@pytest.mark.parametrize(("last", "status"), [("os._exit(0)", Exit.CUT_OFF), ("os._exit(7)", 7)])
def test_bytes_that_are_lost_are_the_status_unless_the_program_failed(
    script: Callable[[Relay], None], said: str, last: str, status: int
) -> None:
    with Bridge(Behaviour(script=script)) as bridge:
        got, err = run(bridge, 3_000_000, last)  # more than one session's side holds
    assert re.match(f"emissary: {said}", err), err
    assert got == status


def test_bytes_that_the_relay_has_and_the_target_does_not_take_are_said() -> None:
    """Symptom: the relay gave up a minute later and reset the target, when nobody was there to be told."""
    with Bridge(Behaviour(script=deaf)) as bridge:
        got, err = run(bridge, 1000)
        assert bridge.relay().acknowledges == 1000
    assert err.startswith(f"emissary: the last bytes written to the tunnel to {TARGET} had not arrived")
    assert got == Exit.CUT_OFF


def loses_its_relay(relay: Relay) -> None:
    relay.reads = False

    def die() -> None:
        wait_until(lambda: relay.acknowledges == 1000, "the relay has everything")
        relay.control(FrameType.ENDED, Ended(Code.RELAY_GONE, 0, 0).encode())

    threading.Thread(target=die, name="test-death", daemon=True).start()


def test_a_relay_that_dies_with_the_last_bytes_is_the_status() -> None:
    with Bridge(Behaviour(script=loses_its_relay)) as bridge:
        got, err = run(bridge, 1000)
    assert "RELAY_GONE" in err
    assert "The last bytes that the program had written may not have arrived" in err
    assert got == Exit.CUT_OFF


@pytest.mark.parametrize("status", [0, 7])
def test_a_reset_behind_a_whole_session_is_shown_only_if_the_program_failed(status: int) -> None:
    """Symptom: every eighth psql over TLS alarmed after a good session."""

    def script(relay: Relay) -> None:
        relay.resets_at_end = True

    with Bridge(Behaviour(script=script)) as bridge:
        got, err = run(bridge, 500, f"os._exit({status})")
        assert len(bridge.relay().arrived) == 500
    assert got == status
    assert ("TARGET_RESET" in err) == bool(status)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_a_signal_behind_the_program_s_end_ends_the_wait_and_what_is_lost_is_said(number: int) -> None:
    gate, reached = threading.Event(), threading.Event()

    def script(relay: Relay) -> None:
        reached.set()
        assert gate.wait(HANG)

    with Bridge(Behaviour(script=script)) as bridge:
        with start(bridge, 5, "print(flush=True); sock.close()") as running:
            assert running.stdout is not None
            assert running.stderr is not None
            assert reached.wait(HANG)
            assert running.stdout.read(1)  # and then the program ends by itself, at some time
            wait_until(lambda: not children(running.pid), "the program's end")
            # It may come before it means us: while it is still passed on, to nobody.
            while not select.select([running.stderr], [], [], 0.05)[0]:
                running.send_signal(number)
            said = running.communicate(timeout=HANG)[1]
        gate.set()
    assert "whatever was written to a connection to db.internal:5432 that was still being dialled" in said
    assert running.returncode == Exit.CUT_OFF
