"""``emissary exec`` as a command: what it asks for, what it hands its program, what it says at the end."""

from __future__ import annotations

import ast
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from emissary_lib.cli import main as cli
from emissary_lib.cli.execute import fill_placeholders, nothing_connected
from emissary_lib.cli.program_environment import Service
from emissary_lib.cli.service_url import LocalPort
from emissary_lib.exit_status import Exit
from emissary_lib.protocol.auth.keys import Key, format_keys
from emissary_lib.protocol.targets.allow_list import Target
from tests.helpers.patience import HANG

ROOT = pathlib.Path(__file__).resolve().parents[3]

#: Settings that are well formed; nothing answers there, and nobody asks before a program connects.
SETTINGS = {"EMISSARY_URL": "ws://127.0.0.1:9/s", "EMISSARY_AUTH_KEYS": format_keys([Key(1, bytes(32))])}

#: Prints its arguments and its environment.
SHOW = "import os, sys; print((sys.argv[1:], dict(os.environ)))"

#: Connects to each port that it is told of, and closes again.
CONNECT = (
    "import socket, sys\n"
    "for port in sys.argv[1:]:\n"
    "    with socket.create_connection(('127.0.0.1', port)) as sock: sock.sendall(b'x')\n"
)


def emissary(
    *arguments: str, environ: dict[str, str] | None = None, cwd: pathlib.Path = ROOT
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "emissary_lib", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **SETTINGS, **(environ or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=HANG,
    )


def python(code: str, *arguments: str) -> list[str]:
    return ["--", sys.executable, "-c", code, *arguments]


def local(target: str, port: int) -> LocalPort:
    return LocalPort(Target.parse(target), "127.0.0.1", port)


def test_placeholders_are_filled_and_other_braces_stay() -> None:
    words = [
        "{port}",
        "host={host} port={port}",
        "{",
        "{}",
        "{{port}}",
        "{user}",
        "%s",
        "{port1}{port2}{ports}",
    ]
    ports = [LocalPort(Target.parse("db:1"), "::1", 5433), local("cache:2", 5434)]
    assert fill_placeholders(words, ports) == [
        "5433",
        "host=::1 port=5433",
        "{",
        "{}",
        "{5433}",
        "{user}",
        "%s",
        "54335434{ports}",
    ]


def test_a_program_gets_each_address_in_its_arguments_and_its_environment_and_no_key() -> None:
    environ = {
        "MINE": "kept",
        "EMISSARY_HOST": "an old one",
        "PGHOST": "an old one",
        "DATABASE_URL": "postgresql://u:p@db.internal/app?sslmode=verify-full",
    }
    words = python(SHOW, "{host}:{port}", "{host2}:{port2}")
    done = emissary("exec", "db.internal:5432", "cache.internal:6379", *words, environ=environ)
    (one, other), env = ast.literal_eval(done.stdout)
    assert done.returncode == 0
    assert one != other
    port, port2 = (address.removeprefix("127.0.0.1:") for address in (one, other))
    expected = {
        "MINE": "kept",
        "EMISSARY_HOST": "127.0.0.1",
        "EMISSARY_PORT": port,
        "EMISSARY_PORT_2": port2,
        "EMISSARY_CACHE_INTERNAL_6379_PORT": port2,
        "PGHOST": "db.internal",
        "PGHOSTADDR": "127.0.0.1",
        "PGPORT": port,
        "DATABASE_URL": f"postgresql://u:p@db.internal:{port}/app?sslmode=verify-full&hostaddr=127.0.0.1",
        "REDIS_URL": f"redis://127.0.0.1:{port2}",
    }
    assert {name: env.get(name) for name in expected} == expected
    assert "EMISSARY_AUTH_KEYS" not in env
    assert SETTINGS["EMISSARY_AUTH_KEYS"] not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["db:6000"], []),
        (["db:6000", "--as", "postgres"], ["PGHOST"]),
        (["db:6000", "cache:7000", "--as=redis", "--as=mysql"], ["MYSQL_HOST", "REDIS_URL"]),
        (["--no-env", "db:5432", "cache:6379"], []),
    ],
    ids=lambda given: " ".join(sorted(given)),
)
def test_options_say_what_the_targets_are(options: list[str], expected: list[str]) -> None:
    done = emissary("exec", *options, *python(SHOW))
    _words, env = ast.literal_eval(done.stdout)
    assert [name for name in ("PGHOST", "MYSQL_HOST", "REDIS_URL") if name in env] == expected
    assert env["EMISSARY_HOST"] == "127.0.0.1"


@pytest.mark.parametrize("status", [0, 7, 255])
def test_a_program_that_never_connects_is_told_of_and_its_status_stays(status: int) -> None:
    """Symptom: a migration that read its own URL went to the local database, with status 0 and in silence."""
    done = emissary(
        "exec", "db.internal:5432", "cache:6379", *python(f"print('{{port}} {{port2}}'); exit({status})")
    )
    port, port2 = done.stdout.split()
    assert done.returncode == status
    assert done.stderr == (
        f"emissary: {nothing_connected(1, local('db.internal:5432', int(port)), Service.POSTGRES)}\n"
        f"emissary: {nothing_connected(2, local('cache:6379', int(port2)), Service.REDIS)}\n"
    )


def test_of_a_program_that_was_interrupted_before_it_connected_nothing_is_said() -> None:
    done = emissary("exec", "db:1", *python("import os, signal; os.kill(os.getpid(), signal.SIGTERM)"))
    assert (done.returncode, done.stderr) == (128 + signal.SIGTERM, "")


def test_only_of_the_target_that_nothing_has_connected_to_is_that_said() -> None:
    done = emissary("exec", "db:1", "cache:2", "--timeout=0.001", *python(CONNECT, "{port2}"))
    assert "nothing connected to 127.0.0.1:" in done.stderr
    assert "which leads to db:1:" in done.stderr
    assert "which leads to cache:2:" not in done.stderr
    assert done.returncode != 0  # the dial's


def test_what_is_said_of_a_program_that_never_connects_names_the_address_and_the_ways_to_it() -> None:
    assert nothing_connected(1, local("db.internal:5432", 41001), Service.POSTGRES) == (
        "nothing connected to 127.0.0.1:41001, which leads to db.internal:5432: give the program the address "
        "by {host} and {port} in its arguments, or let it read EMISSARY_HOST, EMISSARY_PORT, PGHOST, "
        "PGHOSTADDR, PGPORT from its environment"
    )
    assert nothing_connected(2, local("10.0.1.7:9000", 41002), None) == (
        "nothing connected to 127.0.0.1:41002, which leads to 10.0.1.7:9000: give the program the address by "
        "{host2} and {port2} in its arguments, or let it read EMISSARY_HOST_2, EMISSARY_PORT_2 from its "
        "environment"
    )


def test_a_program_that_cannot_be_started_is_not_said_to_have_connected_to_nothing() -> None:
    done = emissary("exec", "db:5432", "--", "no-such-program-anywhere")
    assert (done.returncode, done.stderr.count("\n")) == (Exit.NOT_STARTED, 1)
    assert done.stderr.startswith("emissary: cannot start no-such-program-anywhere: No such file")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["db:1", "db:2", "DB:1"], "argument TARGET: db:1 is named twice"),
        (["db:1", "--as", "oracle"], "argument --as: 'oracle' is none of postgres, mysql, redis"),
        (["db:1", "--as=redis", "--as=mysql"], "argument --as: there are more of them than targets"),
        (["db:1", "--as=redis", "--no-env"], "argument --no-env: not allowed with argument --as"),
        (["db:1", "cache"], "argument TARGET: 'cache' has no port"),
        (["db:1", "psql"], "(the command to run stands behind --)"),
        (["db:1", "--no-env", "cache"], "argument TARGET: 'cache' has no port"),
        (["db:1", "--timeout", "5", "db:2", "--foo"], "unrecognized arguments: --foo"),
        ([], "the following arguments are required: TARGET"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_says_what_is_wrong(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["exec", *arguments, "--", "true"])
    assert ended.value.code == Exit.USAGE
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize(
    ("targets", "words", "complaint"),
    [
        (["db:1"], ["job", "{port3}"], "{port3} stands for a target that was not named; there is one target"),
        (["db:1", "db:2"], ["job", "-h{host2}:{port12}"], "{port12} stands for a target that was not named"),
        (["db:1"], ["{host0}"], "{host0} stands for a target that was not named"),
        (["db:1"], [""], "the command behind -- is an empty word; is a variable not set?"),
        (["db:1"], [], "name the command to run behind --"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_words_that_cannot_be_what_was_meant_are_wrong_usage(
    targets: list[str], words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Symptom: the program ran with {port3} as it stood, or `cannot start : Permission denied`."""
    with pytest.raises(SystemExit) as ended:
        cli.main(["exec", *targets, "--", *words])
    assert ended.value.code == Exit.USAGE
    assert complaint in capsys.readouterr().err


def test_options_may_stand_between_the_targets() -> None:
    """Symptom: "unrecognized arguments: cache:6379"."""
    arguments = ["db:5432", "--timeout", "5", "cache:6379", "--as", "mysql", "--as", "postgres", "queue:1"]
    done = emissary("exec", *arguments, *python(SHOW, "{port3}"))
    assert done.returncode == Exit.OK
    (port,), environ = ast.literal_eval(done.stdout)
    assert port == environ["EMISSARY_QUEUE_1_PORT"]
    assert environ["MYSQL_TCP_PORT"] == environ["EMISSARY_DB_5432_PORT"]
    assert environ["PGPORT"] == environ["EMISSARY_CACHE_6379_PORT"]
