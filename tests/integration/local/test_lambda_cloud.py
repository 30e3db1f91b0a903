"""The whole local cloud: a template's functions, driven over its WebSocket API by a real client."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore.session
import pytest
import websocket

from emissary_local import LocalCloud, LocalCloudError, TemplateError
from emissary_local.command import run_foreground
from tests.helpers.patience import HANG, wait_until

TEMPLATE = Path(__file__).parent / "stack" / "template.yaml"
TARGETS = [("127.0.0.1", 5432)]


@pytest.fixture(scope="module")
def cloud() -> Iterator[LocalCloud]:
    with LocalCloud(TEMPLATE, targets=TARGETS) as running:
        yield running


@pytest.fixture
def client(cloud: LocalCloud) -> Iterator[websocket.WebSocket]:
    socket = websocket.create_connection(cloud.url, timeout=HANG)
    yield socket
    socket.close()


def ask(client: websocket.WebSocket, question: str) -> Any:
    client.send(question)
    return json.loads(client.recv())


def _gone(pid: int) -> bool:
    """Whether it can be waited for, which a process whose first thread alone has ended cannot."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        return state == "Z" and len(list(Path(f"/proc/{pid}/task").iterdir())) == 1
    except FileNotFoundError:
        return True


def _wait_until_gone(pids: list[int]) -> None:
    wait_until(lambda: all(_gone(pid) for pid in pids), "the end of every process")


def _descendants(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += [int(child), *_descendants(int(child))]
    return found


def test_function_uses_the_templates_table(client: websocket.WebSocket) -> None:
    first = ask(client, "count")
    assert ask(client, "count") == first + 1
    assert ask(client, "ttl") == "expires"


def test_concurrent_updates_are_all_counted(cloud: LocalCloud, client: websocket.WebSocket) -> None:
    before = ask(client, "count")
    for _ in range(20):
        client.send("count")
    counted = sorted(json.loads(client.recv()) for _ in range(20))
    assert counted == list(range(before + 1, before + 21))


def test_one_of_many_racing_claims_wins(client: websocket.WebSocket) -> None:
    for _ in range(8):
        client.send("claim the-session")
    answers = [json.loads(client.recv()) for _ in range(8)]
    assert sorted(answers) == ["ConditionalCheckFailedException"] * 7 + ["won"]


def test_asynchronous_invocation_runs_and_posts_back(client: websocket.WebSocket) -> None:
    assert ask(client, "enqueue") == "worked"


def test_synchronous_invocation_returns_the_answer(client: websocket.WebSocket) -> None:
    answer = ask(client, 'invoke {"echo": "x"}')
    assert answer == {"status": 200, "error": None, "payload": {"echo": "x"}}


def test_failing_invocation_carries_the_function_error(client: websocket.WebSocket) -> None:
    answer = ask(client, 'invoke {"fail": true}')
    assert (answer["error"], answer["payload"]["errorType"]) == ("Unhandled", "ValueError")


def test_payload_that_is_not_json_is_refused(client: websocket.WebSocket) -> None:
    assert ask(client, "invoke {") == {"code": "InvalidRequestContentException"}


def test_unknown_function_is_not_found(client: websocket.WebSocket) -> None:
    assert ask(client, "invoke-unknown") == "ResourceNotFoundException"


def test_wrongly_signed_database_call_is_refused(client: websocket.WebSocket) -> None:
    assert ask(client, "forge") == "InvalidSignatureException"


def test_template_parameters_reach_the_functions(client: websocket.WebSocket) -> None:
    assert json.loads(ask(client, "variable TARGETS")) == [{"host": "127.0.0.1", "port": 5432}]
    assert ask(client, "variable SUBNETS").startswith("subnet-")
    assert ask(client, "variable GREETING") == "hello"


def test_meter_and_logs_tell_what_happened(cloud: LocalCloud, client: websocket.WebSocket) -> None:
    before = cloud.meter
    ask(client, "count")
    # The answer overtakes the end of the invocation that posted it.
    wait_until(lambda: (cloud.meter - before).invocations.get("Default"), "the invocation's end")
    used = cloud.meter - before
    assert (used.messages_in, used.messages_out, used.write_units) == (1, 1, 1.0)
    assert used.cost() > 0
    assert "INIT_REPORT" in cloud.logs("Default")
    assert "--- Connect" in cloud.logs()


def test_tls_is_trusted_through_the_clouds_own_authority() -> None:
    with LocalCloud(TEMPLATE, tls=True, parameters={"Greeting": "moin"}) as cloud:
        assert cloud.url.startswith("wss://")
        client = websocket.create_connection(cloud.url, timeout=HANG, sslopt={"context": cloud.ssl_context})
        try:
            assert ask(client, "variable GREETING") == "moin"
        finally:
            client.close()


def test_close_leaves_no_process_and_no_file() -> None:
    cloud = LocalCloud(TEMPLATE)
    cloud.start()
    directory = Path(os.readlink(f"/proc/{cloud.pid}/fd/2")).parent
    client = websocket.create_connection(cloud.url, timeout=HANG)
    try:
        ask(client, "count")
        pids = [cloud.pid, *_descendants(cloud.pid)]
        assert len(pids) >= 5  # cloud, tables, fork server, two environments
    finally:
        client.close()
        cloud.close()
    assert all(_gone(pid) for pid in pids)
    assert not directory.exists()
    cloud.close()  # again: does nothing
    with pytest.raises(LocalCloudError, match="not running"):
        _ = cloud.url


def test_killed_user_takes_the_whole_cloud_along() -> None:
    program = (
        "import sys; from emissary_local import LocalCloud\n"
        "cloud = LocalCloud(sys.argv[1]); cloud.start()\n"
        "print(cloud.pid, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(TEMPLATE)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as user:
        assert user.stdout is not None
        pid = int(user.stdout.readline())
        pids = [pid, *_descendants(pid)]
        directory = Path(os.readlink(f"/proc/{pid}/fd/2")).parent
        user.kill()
    _wait_until_gone(pids)
    assert not directory.exists()


@pytest.mark.slow
def test_killed_cloud_process_takes_its_children_along_and_is_reported() -> None:
    cloud = LocalCloud(TEMPLATE)
    cloud.start()
    try:
        pids = _descendants(cloud.pid)
        os.kill(cloud.pid, signal.SIGKILL)
        _wait_until_gone([cloud.pid, *pids])
        assert not cloud.alive
        with pytest.raises(LocalCloudError, match="the cloud process has died"):
            _ = cloud.meter
    finally:
        cloud.close()


def test_faulty_template_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match="cannot read the template"):
        LocalCloud(tmp_path / "absent.yaml").start()
    with pytest.raises(TemplateError, match="has no parameter 'Nope'"):
        LocalCloud(TEMPLATE, parameters={"Nope": "1"}).start()


def test_setting_refused_by_the_cloud_process_is_named() -> None:
    with pytest.raises(LocalCloudError, match="unknown latency profile 'slow'"):
        LocalCloud(TEMPLATE, latency="slow").start()


@pytest.mark.slow
def test_foreground_run_prints_one_json_line_and_the_cost_at_the_end() -> None:
    class Output:
        """Interrupts this process once the ready line is there, as Ctrl-C would."""

        def __init__(self) -> None:
            self.text = ""
            self.interrupted = False

        def write(self, text: str) -> int:
            self.text += text
            return len(text)

        def flush(self) -> None:
            if not self.interrupted and "\n" in self.text:
                self.interrupted = True
                os.kill(os.getpid(), signal.SIGINT)

    output = Output()
    threads, handler = threading.active_count(), signal.getsignal(signal.SIGINT)
    assert run_foreground(LocalCloud(TEMPLATE, targets=TARGETS), json_line=True, out=output) == 0  # type: ignore[arg-type]
    ready, goaway = (json.loads(line) for line in output.text.splitlines())
    assert set(ready) == {"url", "key", "pid"}
    assert ready["key"]["kid"] == 1
    assert _gone(ready["pid"])
    assert goaway["cost"] == 0.0
    assert threading.active_count() == threads
    assert signal.getsignal(signal.SIGINT) is handler


@pytest.mark.slow
def test_operator_sees_the_tables_and_functions_get_more_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    with LocalCloud(TEMPLATE, targets=TARGETS, variables={"Default": {"MORE": "given by hand"}}) as cloud:
        for name, value in cloud.operator.items():
            monkeypatch.setenv(name, value)
        client: Any = botocore.session.Session().create_client("dynamodb")
        try:
            assert client.list_tables()["TableNames"] == list(cloud.tables.values())
        finally:
            client.close()
        socket = websocket.create_connection(cloud.url, timeout=HANG)
        try:
            assert ask(socket, "variable MORE") == "given by hand"
        finally:
            socket.close()


def test_variables_for_a_function_that_is_not_there_are_refused() -> None:
    with pytest.raises(LocalCloudError, match="variables are given for Nope: no such function"):
        LocalCloud(TEMPLATE, targets=TARGETS, variables={"Nope": {}}).start()
