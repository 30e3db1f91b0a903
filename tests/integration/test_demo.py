"""The commands as a user runs them: in processes of their own, over the whole stack."""

from __future__ import annotations

import io
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from emissary_lib import Dialer, Key
from emissary_lib.client import drain
from emissary_lib.protocol.auth.keys import format_keys, parse_keys
from emissary_local import LocalCloud
from tests.helpers import local_cloud
from tests.helpers.local_cloud import DIAL, LINUX_ONLY, ROOT, all_tunnels_over
from tests.helpers.patience import HANG
from tools.bench.measure import Sizes
from tools.bench.run import run_bench
from tools.demo import run, verify
from tools.demo.postgres import embedded_postgres

TEMPLATE = str(local_cloud.TEMPLATE)

pytestmark = LINUX_ONLY


@pytest.fixture
def patient_dialers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dialer that is closed waits for its tunnels' end: demo and bench end their cloud right after."""
    monkeypatch.setattr(drain, "STANDSTILL", HANG)


def test_the_demo_ends_with_success_and_its_table() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "tools.demo"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=4 * HANG,
    )
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout + ended.stderr
    said = ended.stdout
    assert "applied         6 revisions, 0001 to 0006" in said
    assert re.search(r"dial +first \d+ ms \(cold\), then \d+ ms \(median of 5\)", said)
    assert re.search(r"round trip +\d+\.\d ms", said)
    assert len(re.findall(r"COPY (?:in|out) +2\d\.\d MB in .* MB/s, checksummed at both ends", said)) == 2
    assert re.search(r"messages +[\d,]{3,} from clients, [\d,]{3,} to clients", said)
    assert re.search(r"AWS would bill  \$0\.0[01]\d+", said)
    assert "verified        12 of 12 facts: the database's own, and that no AWS call was refused" in said


@pytest.mark.slow
@pytest.mark.usefixtures("patient_dialers")
def test_a_demo_whose_database_is_not_as_it_should_be_ends_with_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Somebody meddles between the tunnel and the verification."""
    honest = verify.check_history

    def meddled(connection: psycopg.Connection[Any]) -> object:
        connection.execute("UPDATE bulk_in SET body = reverse(body) WHERE id = 1")
        return honest(connection)

    monkeypatch.setattr(verify, "check_history", meddled)
    out = io.StringIO()
    assert run.run_demo(TEMPLATE, out=out, copy_size=200_000) == 1
    assert "verified        11 of 12 facts" in out.getvalue()
    assert "WRONG: COPY in: size and SHA-256" in out.getvalue()


def without(folder: pathlib.Path, role: str, sid: str) -> str:
    """The stack, but for one statement of a role: a template in ``folder``, beside the same code."""
    before, found, rest = (ROOT / "template.yaml").read_text().partition(f"\n  {role}:\n")
    assert found
    changed, times = re.subn(rf"( +)- Sid: {sid}\n(?:\1  .*\n)+", "", rest, count=1)
    assert times == 1
    (folder / "template.yaml").write_text(before + found + changed)
    for code in ("functions", "emissary_lib"):
        (folder / code).symlink_to(ROOT / code)
    return str(folder / "template.yaml")


@pytest.mark.slow
@pytest.mark.usefixtures("patient_dialers")
def test_a_demo_ends_with_failure_if_aws_would_refuse_a_call_that_no_client_misses(
    tmp_path: pathlib.Path,
) -> None:
    """What $disconnect notes is noticed by nobody whose session has ended."""
    template = without(tmp_path, "DisconnectRole", "ReadAndAdvanceSessions")
    out = io.StringIO()
    assert run.run_demo(template, out=out, copy_size=200_000) == 1
    said = out.getvalue()
    assert "verified        11 of 12 facts" in said
    wrong = (
        "WRONG: no AWS call was refused: expected [], found ['DisconnectFunction may not dynamodb:GetItem on "
    )
    assert wrong in said


@pytest.mark.slow
@pytest.mark.usefixtures("patient_dialers")
def test_the_bench_measures_tunnel_and_direct_connection_alike() -> None:
    sizes = Sizes(
        2,
        5,
        stream=500_000,
        warm=100_000,
        idle_tunnels=2,
        idle_seconds=0.2,
        cut_seconds=0.5,
        imports=1,
        at_once=3,
    )
    progress = io.StringIO()
    line = run_bench(TEMPLATE, progress=progress, sizes=sizes)
    assert "\n" not in line
    found = json.loads(line)
    figures = {"dial_ms", "round_trip_ms", "from_target_mb_s", "to_target_mb_s", "idle_cpu_s"}
    pauses = found["tunnel"].pop("cut")
    assert set(pauses) == {"round_trip_ms", "from_target_ms", "to_target_ms"}
    assert all(pauses.values())
    assert all(found[name] > 0 for name in ("import_ms", "bare_import_ms", "import_ratio"))
    assert set(found["tunnel"]) == set(found["direct"]) == figures
    at_once = {"dials_at_once_ms", "dials_at_once_again_ms"}
    sharing = at_once | {"first_dial_ms", "round_trip_beside_ms", "stopped_readers_mb"}
    assert set(found["shared"]) == figures | sharing
    assert all(found["shared"][name] for name in sharing - {"stopped_readers_mb"})
    assert found["shared"]["stopped_readers_mb"] >= 0, "three readers may fit into memory that was there"
    for which in ("tunnel", "shared", "direct"):
        assert all(found[which][name] > 0 for name in figures - {"idle_cpu_s"})
        assert f"{which}: 2 dials\n" in progress.getvalue()


@pytest.mark.slow
def test_the_readme_s_ten_lines_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As they stand there, but for the names of the database and its user."""
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    code = "\n".join(blocks).replace("with dialer.forward", "import psycopg\nwith dialer.forward")
    with embedded_postgres() as postgres:
        target = f"{postgres.host}:{postgres.port}"
        code = code.replace("db.internal:5432", target).replace('"secret"', repr(postgres.password))
        code = code.replace('database="app"', 'database="postgres"').replace(
            'dbname="app"', 'dbname="postgres"'
        )
        code = code.replace('"app"', f'"{postgres.user}"').replace(
            "psycopg.connect(", "connection = psycopg.connect("
        )
        code += "    assert connection.execute('SELECT 2').fetchone() == (2,)\n    connection.close()\n"
        code += "dialer.close()\n"
        # The second block's dialer must be open; the first closes its own.
        code = code.replace("import psycopg", "import psycopg\ndialer = Dialer.from_env()")
        with LocalCloud(TEMPLATE, targets=[(postgres.host, postgres.port)]) as cloud:
            with Dialer(cloud.url, cloud.key) as dialer:
                dialer.dial((postgres.host, postgres.port), HANG).close()  # every function has started now
            monkeypatch.setenv("EMISSARY_URL", cloud.url)
            monkeypatch.setenv("EMISSARY_AUTH_KEYS", format_keys([cloud.key]))
            with all_tunnels_over():
                exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out.startswith("PostgreSQL 18.")


@pytest.fixture
def echo() -> Iterator[tuple[str, int]]:
    """A target that sends back the first bytes it gets, to one connection after the other."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    sock, _ = listener.accept()
                except OSError:
                    return
                with sock:
                    sock.sendall(sock.recv(100))

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_local_serves_until_it_is_stopped_and_then_tells_the_cost(
    stop: signal.Signals, echo: tuple[str, int]
) -> None:
    arguments = ["local", "--json", "--target", f"{echo[0]}:{echo[1]}", "--seed", "3", "--reorder", "0.2"]
    with subprocess.Popen(
        [sys.executable, "-m", "emissary_lib", *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            ready = json.loads(process.stdout.readline())
            assert ready["pid"] > 0
            key: Key = parse_keys(json.dumps([ready["key"]]))[0]
            with all_tunnels_over(), Dialer(ready["url"], key) as dialer, dialer.dial(echo, DIAL) as sock:
                sock.sendall(b"hello")
                assert sock.recv(100) == b"hello"
            process.send_signal(stop)
            goaway = json.loads(process.stdout.readline())
            assert goaway["cost"] > 0
            assert goaway["meter"]["connects"] == 2
        except BaseException:
            process.terminate()
            raise
    assert process.returncode == 0
    with pytest.raises(ProcessLookupError):
        os.kill(ready["pid"], 0)
