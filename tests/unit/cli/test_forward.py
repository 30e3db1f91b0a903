"""A forwarded port as a command: ready or failed at once, told in one line, ended by a signal."""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import pathlib
import signal
import socket
import subprocess
import sys
from typing import Any

import pytest

from emissary_lib.cli import main as cli
from emissary_lib.cli.dialling import begin, forward_all, show_warnings
from emissary_lib.cli.forward import pair, run_until_stopped
from emissary_lib.cli.report import Report
from emissary_lib.client import forward as forward_module
from emissary_lib.client.dialer import Dialer
from emissary_lib.exceptions import ListenError, TargetRefusedError
from emissary_lib.exit_status import Exit
from emissary_lib.protocol.auth.keys import format_keys
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.targets.allow_list import Target
from emissary_lib.protocol.wire.frames import FrameType
from emissary_lib.protocol.wire.payloads import GoAway
from tests.helpers.bridge import KEY, TARGET, Behaviour, Bridge, echo
from tests.helpers.patience import HANG

ROOT = pathlib.Path(__file__).resolve().parents[3]
PARSED = Target.parse(TARGET)
ANY = ("127.0.0.1", 0)


def environment(url: str) -> dict[str, str]:
    return {**os.environ, "EMISSARY_URL": url, "EMISSARY_AUTH_KEYS": format_keys([KEY])}


class Command(subprocess.Popen[str]):
    """Ends with its test, if that fails before it has ended it."""

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        if kind is not None:
            self.kill()
        super().__exit__(kind, *rest)


def emissary(url: str, *arguments: str) -> Command:
    return Command(
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
            assert set(ready) == {"event", "host", "port", "target", "pid"}
            assert (ready["host"], ready["target"], ready["pid"]) == ("127.0.0.1", TARGET, running.pid)
            with socket.create_connection((ready["host"], ready["port"]), HANG) as sock:
                sock.sendall(b"hello")
                assert sock.recv(100) == b"hello"
                assert json.loads(running.stdout.readline())["event"] == "opened"
                running.send_signal(number)
                assert running.wait(HANG) == Exit.OK
            rest = [json.loads(line)["event"] for line in running.stdout.read().splitlines()]
            assert (rest, running.stderr.read()) in (([], ""), (["closed"], ""))


def test_a_busy_port_fails_and_says_what_to_do() -> None:
    with socket.create_server(ANY) as taken:
        dialer = Dialer("ws://127.0.0.1:1/s", KEY)
        with pytest.raises(ListenError, match="in use; choose another address, or port 0"):
            with forward_all(dialer, [(PARSED, taken.getsockname())], HANG, check=False):
                pass


def test_a_name_that_does_not_resolve_cannot_be_listened_on() -> None:
    dialer = Dialer("ws://127.0.0.1:1/s", KEY)
    with pytest.raises(
        ListenError, match=r"^cannot listen on 256\.1\.1\.1:1: [^(]*; choose another address of"
    ):
        with forward_all(dialer, [(PARSED, ("256.1.1.1", 1))], HANG, check=False):
            pass


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EADDRINUSE, "choose another address, or port 0 for a free one"),
        (errno.EADDRNOTAVAIL, "choose another address of this machine"),
        (errno.EACCES, "choose a port from 1024 on, or port 0 for a free one"),
    ],
    ids=["in use", "of another machine", "privileged"],
)
def test_what_to_do_about_an_address_depends_on_what_the_system_says(
    number: int, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Symptom: port 0 was advised to whoever had taken it, for an address of another machine."""

    def refuse(*_address: object) -> None:
        raise OSError(number, "as the system says")

    monkeypatch.setattr(forward_module, "listen", refuse)
    forward = Dialer("ws://127.0.0.1:1/s", KEY).forward(TARGET, ("192.0.2.1", 80))
    with pytest.raises(ListenError, match=f"^cannot listen on 192.0.2.1:80: .*; {advice}$"):
        begin(forward, ("192.0.2.1", 80))


def test_one_address_that_is_busy_ends_all_and_nothing_is_left(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.create_server(ANY) as taken:
        port = str(taken.getsockname()[1])
        for name, value in environment("ws://127.0.0.1:1/s").items():
            monkeypatch.setenv(name, value)
        assert cli.main(["forward", TARGET, "--listen", "./socket", "b:1", "--listen", port]) == Exit.PORT
    assert os.listdir() == []


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("./file", "there is something else than a socket, which is left alone"),
        ("./no/socket", "No such file or directory"),
        ("./" + "x" * 200, "a path of 202 bytes is too long"),
    ],
)
def test_a_path_that_cannot_be_listened_at_says_why(
    path: str, reason: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("precious")
    dialer = Dialer("ws://127.0.0.1:1/s", KEY)
    with pytest.raises(ListenError, match=f"cannot listen on {path}: {reason}.*; choose another path"):
        with forward_all(dialer, [(PARSED, path)], HANG, check=False):
            pass
    assert os.listdir() == ["file"]


def write_and_read(address: tuple[str, int]) -> None:
    with socket.create_connection(address, HANG) as sock:
        sock.sendall(b"x")
        sock.recv(1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda n: n.name)
def test_several_targets_are_events_of_one_stream_and_a_signal_leaves_nothing(
    number: signal.Signals, tmp_path: pathlib.Path
) -> None:
    given = [TARGET, "--listen", f"{tmp_path}/", "cache:6379", "--listen", "localhost:0"]
    with Bridge(Behaviour(script=echo)) as bridge:
        with emissary(bridge.url, "forward", *given, "--json") as running:
            assert running.stdout is not None
            assert running.stderr is not None

            def event() -> dict[str, object]:
                assert running.stdout is not None
                told: dict[str, object] = json.loads(running.stdout.readline())
                return told

            database, cache = event(), event()
            path = f"{tmp_path}/.s.PGSQL.5432"
            assert database == {
                "event": "ready",
                "host": str(tmp_path),
                "port": 5432,
                "target": TARGET,
                "pid": running.pid,
                "path": path,
            }
            assert (cache["host"], cache["target"]) == ("127.0.0.1", "cache:6379")

            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(path)
                sock.sendall(b"hello")
                assert sock.recv(100) == b"hello"
                opened = event()
                assert opened["event"] == "opened"
                assert len(str(opened["session"])) == 64
                sock.shutdown(socket.SHUT_WR)
                assert sock.recv(100) == b""
            assert event() == {"event": "closed", **of(TARGET, 1), "sent": 5, "received": 5}

            # The cloud's allow-list knows no cache; the database is no worse for that.
            address = str(cache["host"]), cache["port"]
            # The refusal may come so soon that the program meets it while it connects, or writes.
            with pytest.raises(ConnectionError):
                write_and_read(address)  # type: ignore[arg-type]
            failed = event()
            message = failed.pop("message")
            assert failed == {"event": "failed", **of("cache:6379", 2), "error": "TargetNotAllowedError"}
            assert "cache:6379" in str(message)
            assert running.stderr.readline() == f"emissary: a forwarded connection failed: {message}\n"

            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(path)
                sock.sendall(b"x")
                assert sock.recv(100) == b"x"
                assert event()["event"] == "opened"
                bridge.relay(1).control(FrameType.GOAWAY, GoAway(Code.RELAY_DEADLINE, 30_000).encode())
                assert event()["event"] == "going_away"
                running.send_signal(number)
                assert running.wait(HANG) == Exit.OK
    assert os.listdir(tmp_path) == []


def of(target: str, connection: int) -> dict[str, object]:
    return {"target": target, "connection": connection}


def test_a_signal_that_was_ignored_at_the_start_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    class Listening(Report):
        def ready(self, listening: object) -> None:
            signal.raise_signal(signal.SIGHUP)  # as of a terminal that nohup outlives
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            signal.raise_signal(signal.SIGTERM)

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        run_until_stopped([], Listening(None))
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    ("given", "cause"),
    [
        (
            ["a:1", "b:2", "--listen", "1"],
            "2 targets (a:1, b:2), but --listen 1 times: give it once for each",
        ),
        (["a:1", "--listen", "1", "--listen", "2"], "1 target (a:1), but --listen 2 times"),
        (["a:1", "b:2", "--listen", "7", "--listen", "7"], "--listen 127.0.0.1:7 was given twice"),
        (["a:1", "b:2", "--listen", "./s", "--listen", "./s"], "--listen ./s was given twice"),
    ],
)
def test_addresses_that_do_not_fit_the_targets_are_wrong_usage(
    given: list[str], cause: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["forward", *given])
    assert caught.value.code == Exit.USAGE
    assert f"emissary forward: error: {cause}" in capsys.readouterr().err


def test_addresses_go_with_targets_in_their_order_wherever_they_stand() -> None:
    for given in (
        ["a:1", "--listen", "1", "b:2", "--listen", "./s"],
        ["--listen", "1", "--listen", "./s", "a:1", "b:2"],
        ["a:1", "b:2", "--json", "--listen", "1", "--listen", "./s"],
    ):
        args = cli.parse(["forward", *given])
        assert pair(args.parser, args.targets, args.listen) == [
            (Target("a", 1), ("127.0.0.1", 1)),
            (Target("b", 2), "./s"),
        ]
    args = cli.parse(["forward", "a:1", "b:2"])
    assert [local for _target, local in pair(args.parser, args.targets, args.listen)] == [ANY, ANY]


def test_a_service_manager_is_told_when_it_listens_and_when_it_ends(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Listening(Report):
        def ready(self, listening: object) -> None:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("notify")
        manager.settimeout(HANG)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        if len(str(tmp_path)) > 90:
            pytest.skip("pytest's folder has too long a name for a socket")
        run_until_stopped([], Listening(None))
        assert [manager.recv(100), manager.recv(100)] == [b"READY=1", b"STOPPING=1"]


def test_a_check_fails_before_anything_listens_with_the_cause() -> None:
    with Bridge(Behaviour(dial_code=Code.TARGET_REFUSED)) as bridge, Dialer(bridge.url, KEY) as dialer:
        with pytest.raises(TargetRefusedError):
            with forward_all(dialer, [(PARSED, ANY)], HANG, check=True):
                pytest.fail("it listens all the same")


def test_without_a_check_nothing_is_dialled_before_somebody_connects() -> None:
    with Bridge() as bridge, Dialer(bridge.url, KEY) as dialer:
        with forward_all(dialer, [(PARSED, ANY)], HANG, check=False) as (address,):
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


def test_warnings_are_shown_only_meanwhile() -> None:
    err, logger = io.StringIO(), logging.getLogger("emissary_lib.forward")
    with show_warnings(err):
        logger.warning("a forwarded connection failed: %s", "because")
        logger.info("not this")
    logger.warning("nor this")
    assert err.getvalue() == "emissary: a forwarded connection failed: because\n"


#: Runs the command with one descriptor left, with two, and so on; with none no Python starts.
STARVED = """
import contextlib, os, resource, sys
from emissary_lib.cli import main as cli

resource.setrlimit(resource.RLIMIT_NOFILE, (200, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
for free in range(1, 5):
    held = []
    with contextlib.suppress(OSError):
        while True:
            held.append(os.open(os.devnull, os.O_RDONLY))
    for each in held[len(held) - free:]:
        os.close(each)
    status = cli.main(["forward", "db.internal:5432"])
    for each in held[:len(held) - free]:
        os.close(each)
    print(status)
"""


def test_without_descriptors_to_listen_with_the_machine_is_the_cause_and_not_the_address() -> None:
    """Symptoms: "choose another address, or port 0 for a free one", and a traceback."""
    pytest.importorskip("resource", reason="Windows has no such limit")
    done = subprocess.run(
        [sys.executable, "-c", STARVED],
        cwd=ROOT,
        env=environment("ws://127.0.0.1:1/stage"),
        capture_output=True,
        text=True,
        timeout=HANG,
    )
    assert done.stdout.split() == [str(Exit.RESOURCES.value)] * 4
    assert [line.count("ulimit -n") for line in done.stderr.splitlines()] == [1] * 4
