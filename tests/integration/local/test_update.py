"""Another version of a template's functions is put in place while the local cloud runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import websocket

from emissary_local import LocalCloud, LocalCloudError
from tests.helpers.patience import HANG

STACK = Path(__file__).parent / "stack"

#: What the stack's functions have besides, here: they say which version they are.
SAYS_ITS_VERSION = """

VERSION = "{version}"


def _which(connection, argument):
    return f"{{VERSION}} {{os.environ['GREETING']}}"


def _hold(connection, argument):
    api.post_to_connection(ConnectionId=connection, Data=b'"held"')
    while not os.path.exists(argument):
        time.sleep(0.005)
    return [_which(connection, ""), _claim(connection, "held")]


def worker(event, context):
    return VERSION


_OPERATIONS |= {{"which": _which, "hold": _hold}}
"""


def version(folder: Path, name: str, change: tuple[str, str] = ("", "")) -> Path:
    """A folder with a version of the stack; the path of its template, in which one text is another."""
    (folder / name).mkdir()
    code = (STACK / "app.py").read_text() + SAYS_ITS_VERSION.format(version=name)
    (folder / name / "app.py").write_text(code)
    template = (STACK / "template.yaml").read_text()
    assert change[0] in template
    (folder / name / "template.yaml").write_text(template.replace(*change))
    return folder / name / "template.yaml"


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[LocalCloud]:
    with LocalCloud(version(tmp_path, "first")) as running:
        yield running


@pytest.fixture
def client(cloud: LocalCloud) -> Iterator[websocket.WebSocket]:
    socket = websocket.create_connection(cloud.url, timeout=HANG)
    yield socket
    socket.close()


def ask(client: websocket.WebSocket, question: str) -> Any:
    client.send(question)
    return json.loads(client.recv())


def test_later_invocations_are_of_the_other_version_and_what_runs_keeps_its_own(
    cloud: LocalCloud, client: websocket.WebSocket, tmp_path: Path
) -> None:
    assert ask(client, "which") == "first hello"
    assert ask(client, f"hold {tmp_path / 'enough'}") == "held"
    cloud.update(version(tmp_path, "second"), parameters={"Greeting": "moin"})
    assert [ask(client, "which") for _ in range(3)] == ["second moin"] * 3
    (tmp_path / "enough").touch()
    assert json.loads(client.recv()) == ["first hello", "won"]


def test_the_other_versions_policies_hold_for_what_runs_too(
    cloud: LocalCloud, client: websocket.WebSocket, tmp_path: Path
) -> None:
    assert ask(client, f"hold {tmp_path / 'enough'}") == "held"
    cloud.update(version(tmp_path, "second", ("dynamodb:*Item", "dynamodb:GetItem")))
    (tmp_path / "enough").touch()
    assert json.loads(client.recv()) == ["first hello", "AccessDeniedException"]
    assert [each.action for each in cloud.denials()] == ["dynamodb:PutItem"]
    (table,) = [each for each in cloud.permissions() if each.name == "Table"]
    assert "dynamodb:GetItem" in table.actions
    assert "dynamodb:*Item" not in table.actions


def test_functions_that_are_not_named_stay_as_they_are(
    cloud: LocalCloud, client: websocket.WebSocket, tmp_path: Path
) -> None:
    second = version(tmp_path, "second")
    cloud.update(second, functions=["Worker"])
    assert ask(client, "which") == "first hello"
    assert ask(client, "invoke {}")["payload"] == "second"
    cloud.update(second, functions=["Default"])
    assert ask(client, "which") == "second hello"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("StageName: dev", "StageName: prod"), "differs in its api"),
        (("AttributeName: pk", "AttributeName: id"), "differs in its tables"),
        (("PasswordLength: 64", "PasswordLength: 65"), "differs in its secrets"),
        (("Handler: app.connect", "Handler: app.connect, ReservedConcurrentExecutions: 3"), "reserves other"),
        (("CodeUri: .", "CodeUri: elsewhere"), "no directory beside the template"),
    ],
)
def test_a_version_that_differs_in_more_than_its_functions_is_refused(
    cloud: LocalCloud, client: websocket.WebSocket, tmp_path: Path, change: tuple[str, str], told: str
) -> None:
    with pytest.raises(LocalCloudError, match=told):
        cloud.update(version(tmp_path, "second", change))
    assert ask(client, "which") == "first hello"


def test_a_function_that_is_not_there_is_refused(
    cloud: LocalCloud, client: websocket.WebSocket, tmp_path: Path
) -> None:
    with pytest.raises(LocalCloudError, match="both versions must have Nobody"):
        cloud.update(version(tmp_path, "second"), functions=["Default", "Nobody"])
    assert ask(client, "which") == "first hello"


def test_functions_from_source_are_not_followed_by_artifacts(cloud: LocalCloud, tmp_path: Path) -> None:
    for name in ("Connect", "Default", "Worker"):
        (tmp_path / "build" / name).mkdir(parents=True)
    with pytest.raises(LocalCloudError, match="from artifacts can follow such alone"):
        cloud.update(version(tmp_path, "second"), artifacts=tmp_path / "build")
