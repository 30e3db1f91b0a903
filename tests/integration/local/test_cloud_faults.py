"""Faults of a whole running cloud: given at the start, replaced later, done on demand, counted, scaled."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import websocket

from emissary_local import Faults, LocalCloud, LocalCloudError
from emissary_local.command import run_foreground
from tests.helpers.local_cloud import eventually
from tests.helpers.patience import HANG, wait_until

pytestmark = pytest.mark.slow

TEMPLATE = Path(__file__).parent / "stack" / "template.yaml"


@pytest.fixture(scope="module")
def cloud() -> Iterator[LocalCloud]:
    with LocalCloud(TEMPLATE, time_scale=10) as running:
        yield running


@pytest.fixture
def client(cloud: LocalCloud) -> Iterator[websocket.WebSocket]:
    cloud.set_faults(Faults())
    socket = websocket.create_connection(cloud.url, timeout=HANG)
    yield socket
    cloud.set_faults(Faults())
    socket.shutdown()  # type: ignore[no-untyped-call]  # close() would wait for an answer, or, once closed, leave the socket open


def ask(client: websocket.WebSocket, question: str) -> Any:
    client.send(question)
    return json.loads(client.recv())


def since(cloud: LocalCloud, before: dict[str, int]) -> dict[str, int]:
    """What has happened since, by kind."""
    counts = cloud.fault_counts
    return {kind: n - before.get(kind, 0) for kind, n in counts.items() if n != before.get(kind, 0)}


def test_faults_are_replaced_and_counted_while_it_runs(
    cloud: LocalCloud, client: websocket.WebSocket
) -> None:
    before = cloud.fault_counts
    ask(client, "count")
    assert since(cloud, before) == {}
    cloud.set_faults(Faults(message_500=1.0))
    assert ask(client, "count")["message"] == "Internal server error"
    assert since(cloud, before) == {"message_500": 1}
    cloud.set_faults(Faults())
    assert isinstance(ask(client, "count"), int)


def test_the_clock_skew_cannot_be_changed_while_it_runs(cloud: LocalCloud) -> None:
    with pytest.raises(LocalCloudError, match="clock skew is fixed when the local cloud starts"):
        cloud.set_faults(Faults(skew_seconds=60.0))


@pytest.mark.parametrize(
    ("how", "kind", "error"),
    [
        ("close", "cut_close", websocket.WebSocketConnectionClosedException),
        ("reset", "cut_reset", OSError),
        ("mid-frame", "cut_mid_frame", websocket.WebSocketConnectionClosedException),
    ],
)
def test_connections_are_cut_on_demand(
    cloud: LocalCloud, client: websocket.WebSocket, how: str, kind: str, error: type[Exception]
) -> None:
    before = cloud.fault_counts
    assert cloud.cut("dialer", how) == 1

    def read() -> None:
        if client.recv_data(control_frame=True)[0] == websocket.ABNF.OPCODE_CLOSE:
            raise websocket.WebSocketConnectionClosedException

    with pytest.raises(error):
        read()
    assert since(cloud, before) == {kind: 1}
    assert cloud.cut("relay", how) == 0


def test_a_silent_connection_answers_nothing(cloud: LocalCloud, client: websocket.WebSocket) -> None:
    assert cloud.cut("dialer", "silent", which=-1) == 1
    client.send("count")
    client.settimeout(0.3)
    with pytest.raises(websocket.WebSocketTimeoutException):
        client.recv()


def test_a_wrong_command_says_what_is_wrong(cloud: LocalCloud) -> None:
    with pytest.raises(LocalCloudError, match="cannot cut 'both' by 'axe'"):
        cloud.cut(how="axe")
    with pytest.raises(LocalCloudError, match="no function 'Nobody'"):
        cloud.crash("Nobody")


def test_a_running_function_is_crashed_on_demand(cloud: LocalCloud, client: websocket.WebSocket) -> None:
    client.send("sleep 600")
    wait_until(lambda: cloud.crash("Default"), "an invocation that runs")
    assert json.loads(client.recv())["message"] == "Internal server error"


def test_retired_environments_start_cold(cloud: LocalCloud, client: websocket.WebSocket) -> None:
    ask(client, "count")
    starts = cloud.logs("Default").count("INIT_REPORT")
    wait_until(lambda: cloud.retire("Default"), "an idle environment")
    ask(client, "count")
    wait_until(lambda: cloud.logs("Default").count("INIT_REPORT") > starts, "a start")


def test_kept_connections_of_frozen_functions_die(cloud: LocalCloud, client: websocket.WebSocket) -> None:
    before = cloud.fault_counts
    cloud.set_faults(Faults(kept_dead=1.0))
    ask(client, "count")  # opens one to DynamoDB and one to @connections
    wait_until(lambda: since(cloud, before).get("kept_dead", 0) >= 2, "two dead connections")
    cloud.set_faults(Faults())
    cloud.retire()  # some of their connections will never answer again


def test_the_functions_remaining_time_is_scaled(client: websocket.WebSocket) -> None:
    assert 10_000 < ask(client, "remaining") <= 100_000  # of 10 s, times 10


def test_the_idle_limit_is_met_in_scaled_time() -> None:
    with LocalCloud(TEMPLATE, time_scale=0.001) as cloud:

        def let_in() -> websocket.WebSocket | None:
            """A function that starts from cold may take longer than the 29 seconds, scaled, allow."""
            try:
                return websocket.create_connection(cloud.url, timeout=HANG)
            except websocket.WebSocketBadStatusException as exc:
                if exc.status_code not in (502, 504):
                    raise
                return None

        client = eventually(let_in, "a function that has started")
        code, data = client.recv_data(control_frame=True)
        assert (code, int.from_bytes(data[:2], "big")) == (websocket.ABNF.OPCODE_CLOSE, 1001)
        client.shutdown()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("skew", [-3600, 7 * 86_400])
def test_a_cloud_with_another_clock_works_in_itself(skew: float) -> None:
    """The SDK signs with the function's clock, and the local services check with the same."""
    with LocalCloud(TEMPLATE, faults=Faults(skew_seconds=skew)) as cloud:
        client = websocket.create_connection(cloud.url, timeout=HANG)
        assert ask(client, "count") == 1
        began = time.time()
        assert began <= ask(client, "clock") - skew <= time.time()
        assert ask(client, 'invoke {"echo": "x"}')["payload"] == {"echo": "x"}
        client.close()


def test_a_foreground_run_tells_what_went_wrong() -> None:
    class Output:
        """Meets a fault once the ready line is there, then interrupts this process, as Ctrl-C would."""

        def __init__(self) -> None:
            self.text = ""
            self.ready = False

        def write(self, text: str) -> int:
            self.text += text
            return len(text)

        def flush(self) -> None:
            if not self.ready:
                self.ready = True
                url = json.loads(self.text)["url"]
                with pytest.raises(websocket.WebSocketBadStatusException):
                    websocket.create_connection(url, timeout=HANG)
                os.kill(os.getpid(), signal.SIGINT)

    output: Any = Output()
    faults = Faults(connect_429=1.0)
    assert run_foreground(LocalCloud(TEMPLATE, faults=faults), json_line=True, out=output) == 0
    assert json.loads(output.text.splitlines()[-1])["faults"] == {"connect_429": 1}
