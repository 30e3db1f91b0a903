"""The composition root: nothing at import, everything once, faults told at the first event."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from emissary_lib.protocol.errors import ConfigError
from functions.common import wiring
from functions.common.events import GatewayEvent
from tests.helpers.events import load_event
from tests.unit.functions.test_config import GOOD

ROOT = Path(__file__).resolve().parents[3]
FUNCTIONS = [
    (wiring.Connect, "connect_dialer"),
    (wiring.Default, "default_data"),
    (wiring.Disconnect, "disconnect_dialer"),
]


@pytest.mark.parametrize(("function", "event"), FUNCTIONS)
def test_wrong_settings_are_told_at_each_event(function: Any, event: str) -> None:
    built = function({"AWS_REGION": "eu-central-1"})
    for _ in range(2):
        with pytest.raises(ConfigError, match="EMISSARY_TABLE is not set"):
            built(GatewayEvent.parse(load_event(event)))


@pytest.mark.parametrize(("function", "event"), FUNCTIONS)
def test_outside_lambda_nothing_is_built_ahead(function: Any, event: str) -> None:
    built = function({"AWS_REGION": "eu-central-1"})
    wiring.warm(built, {})  # not in Lambda: nothing is built, hence nothing is wrong yet
    with pytest.raises(ConfigError):
        built.warm()


SCRIPT = """
import importlib, json, sys
app = importlib.import_module(sys.argv[1])
event = json.load(open(sys.argv[2]))
print(json.dumps({"loaded": sorted(name for name in sys.modules if "." not in name)}), file=sys.stderr)
try:
    print(json.dumps(app.lambda_handler(event, None)))
except Exception as exc:
    print(json.dumps(type(exc).__name__))
"""


def run(module: str, event: str, environ: dict[str, str]) -> tuple[list[Any], list[str]]:
    """The app in a process of its own: its output lines, and the modules it loaded at import."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, module, str(ROOT / "events" / event)],
        env={"PATH": os.environ["PATH"], **environ},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    loaded: list[str] = json.loads(done.stderr.splitlines()[0])["loaded"]
    return [json.loads(line) for line in done.stdout.splitlines()], loaded


@pytest.mark.parametrize("name", ["connect", "default", "disconnect"])
def test_importing_an_app_outside_lambda_has_no_side_effect(name: str) -> None:
    event = {"connect": "connect_dialer", "default": "default_data", "disconnect": "disconnect_relay"}[name]
    output, loaded = run(f"functions.{name}.app", f"{event}.json", {})
    assert output == (["MessageNotHandledError"] if name == "default" else [{"statusCode": 500}])
    assert {"boto3", "urllib3", "websocket"}.isdisjoint(loaded)


def test_an_app_in_lambda_answers_though_its_settings_are_wrong_and_logs_why_as_json() -> None:
    environ = {"AWS_LAMBDA_RUNTIME_API": "127.0.0.1:1", "AWS_LAMBDA_FUNCTION_NAME": "Connect"}
    environ["POWERTOOLS_SERVICE_NAME"] = "my-stack"
    output, _ = run("functions.connect.app", "connect_dialer.json", environ | {"AWS_REGION": "eu-central-1"})
    line, figures, answer = output
    assert answer == {"statusCode": 500}
    assert line["message"] == "request failed"
    assert "EMISSARY_TABLE is not set" in line["cause"]
    assert line["function"] == "Connect"
    assert (figures["service"], figures["ConnectRefused"]) == ("my-stack", [1.0])


def test_warming_builds_what_the_events_need() -> None:
    environ = {**GOOD, "AWS_ACCESS_KEY_ID": "example", "AWS_SECRET_ACCESS_KEY": "example"}
    connect, default = wiring.Connect(environ), wiring.Default(environ)
    disconnect = wiring.Disconnect(environ)
    connect.warm()
    default.warm()
    disconnect.warm()
    assert {"_use_case", "_aws"} <= vars(connect).keys()
    assert {"_store", "_launcher", "_trust", "_aws"} <= vars(default).keys()
    assert {"_store", "_trust", "_aws"} <= vars(disconnect).keys()
