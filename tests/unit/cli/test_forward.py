"""A forwarded port as a command: ready or failed at once, told in one line, ended by a signal."""

from __future__ import annotations

import io
import json
import logging
import os
import pathlib
import signal
import socket
import subprocess
import sys

import pytest

from emissary_lib.cli import main as cli
from emissary_lib.cli.forward import format_address, forward_to, run_until_stopped, show_warnings
from emissary_lib.client.dialer import Dialer
from emissary_lib.exceptions import ListenError, TargetRefusedError
from emissary_lib.exit_status import Exit
from emissary_lib.protocol.auth.keys import format_keys
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.targets.allow_list import Target
from tests.helpers.bridge import KEY, TARGET, Behaviour, Bridge, echo
from tests.helpers.patience import HANG

ROOT = pathlib.Path(__file__).resolve().parents[3]
PARSED = Target.parse(TARGET)
ANY = ("127.0.0.1", 0)


def environment(url: str) -> dict[str, str]:
    return {**os.environ, "EMISSARY_URL": url, "EMISSARY_AUTH_KEYS": format_keys([KEY])}


def emissary(url: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "emissary_lib", *arguments],
        cwd=ROOT,
        env=environment(url),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_one_line_of_json_tells_that_it_is_ready_and_a_signal_ends_it_well(number: signal.Signals) -> None:
    with Bridge(Behaviour(script=echo)) as bridge:
        with emissary(bridge.url, "forward", TARGET, "--json") as running:
            assert running.stdout is not None
            assert running.stderr is not None
            ready = json.loads(running.stdout.readline())
            assert set(ready) == {"host", "port", "target", "pid"}
            assert (ready["host"], ready["target"], ready["pid"]) == ("127.0.0.1", TARGET, running.pid)
            with socket.create_connection((ready["host"], ready["port"]), HANG) as sock:
                sock.sendall(b"hello")
                assert sock.recv(100) == b"hello"
            running.send_signal(number)
            assert running.wait(HANG) == Exit.OK
            assert (running.stdout.read(), running.stderr.read()) == ("", "")


def test_a_busy_port_fails_and_says_what_to_do() -> None:
    with socket.create_server(ANY) as taken:
        dialer = Dialer("ws://127.0.0.1:1/s", KEY)
        with pytest.raises(ListenError, match="in use; choose another address, or port 0"):
            with forward_to(dialer, PARSED, taken.getsockname(), HANG, check=False):
                pass


def test_a_check_fails_before_anything_listens_with_the_cause() -> None:
    with Bridge(Behaviour(dial_code=Code.TARGET_REFUSED)) as bridge, Dialer(bridge.url, KEY) as dialer:
        with pytest.raises(TargetRefusedError):
            with forward_to(dialer, PARSED, ANY, HANG, check=True):
                pytest.fail("it listens all the same")


def test_without_a_check_nothing_is_dialled_before_somebody_connects() -> None:
    with Bridge() as bridge, Dialer(bridge.url, KEY) as dialer:
        with forward_to(dialer, PARSED, ANY, HANG, check=False) as address:
            assert bridge.server.requests == []
            with socket.create_connection(address, HANG):
                bridge.relay()
        assert len(bridge.server.requests) == 1


@pytest.mark.parametrize("code", [Code.NAME_NOT_FOUND, Code.TARGET_NOT_ALLOWED])
def test_the_status_of_a_failed_check_says_why(code: Code, monkeypatch: pytest.MonkeyPatch) -> None:
    with Bridge(Behaviour(dial_code=code)) as bridge:
        for name, value in environment(bridge.url).items():
            monkeypatch.setenv(name, value)
        status = {Code.NAME_NOT_FOUND: 10, Code.TARGET_NOT_ALLOWED: 6}[code]
        assert cli.main(["forward", TARGET, "--check"]) == status
        assert cli.main(["exec", TARGET, "--check", "--", "true"]) == status


def test_a_failed_dial_is_reported_on_standard_error_and_the_program_s_status_counts() -> None:
    code = (
        "import socket, sys\n"
        "try: socket.create_connection((sys.argv[1], sys.argv[2])).recv(1)\n"
        "except ConnectionError: sys.exit(7)"
    )
    command = [sys.executable, "-c", code, "{host}", "{port}"]
    with Bridge(Behaviour(dial_code=Code.NAME_NOT_FOUND)) as bridge:
        with emissary(bridge.url, "exec", TARGET, "--", *command) as running:
            _out, err = running.communicate(timeout=HANG)
    assert running.returncode == 7
    assert err.startswith("emissary: a forwarded connection failed: cannot reach db.internal:5432: ")
    assert "does not resolve" in err
    assert "Traceback" not in err


def test_a_program_that_is_not_there_has_the_shells_status_and_nothing_is_dialled() -> None:
    with Bridge() as bridge:
        with emissary(bridge.url, "exec", TARGET, "--", "no-such-program-anywhere") as running:
            _out, err = running.communicate(timeout=HANG)
        assert (running.returncode, bridge.server.requests) == (Exit.NOT_STARTED, [])
    cause = "No such file or directory; check its name and PATH"
    assert err == f"emissary: cannot start no-such-program-anywhere: {cause}\n"


def test_the_line_for_people_names_both_ends_and_how_to_end_it() -> None:
    class Printed(io.StringIO):
        def flush(
            self,
        ) -> None:  # whoever has read the line may end us at once
            signal.raise_signal(signal.SIGTERM)

    out = Printed()
    run_until_stopped(("::1", 5433), PARSED, json_line=False, out=out)
    assert out.getvalue() == "Listening on [::1]:5433, which leads to db.internal:5432. Ctrl-C ends it.\n"
    assert format_address(("127.0.0.1", 1)) == "127.0.0.1:1"


def test_warnings_are_shown_only_meanwhile() -> None:
    err, logger = io.StringIO(), logging.getLogger("emissary_lib.forward")
    with show_warnings(err):
        logger.warning("a forwarded connection failed: %s", "because")
        logger.info("not this")
    logger.warning("nor this")
    assert err.getvalue() == "emissary: a forwarded connection failed: because\n"
