"""``emissary sessions`` through the command line: boto3, a table and @connections on loopback."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable, Iterator
from urllib.parse import unquote

import pytest

from emissary_lib.bridge.session import EndRecord, RecordStep, SessionRecord
from emissary_lib.cli import main as cli
from emissary_lib.exit_status import Exit
from emissary_lib.operate import kill
from emissary_lib.protocol.codes import MEANINGS, Code
from emissary_lib.protocol.role import Role
from emissary_lib.protocol.targets.allow_list import SHARED_TARGET
from emissary_lib.protocol.wire.frames import FrameType, decode
from emissary_lib.protocol.wire.payloads import Connections, Ended
from functions.common.adapters.store import DynamoSessionStore
from tests.helpers.events import DIALER, RELAY, SESSION
from tests.unit.functions.adapters.callback_server import CallbackServer
from tests.unit.functions.adapters.conftest import TABLE, Dynamo
from tests.unit.functions.adapters.steps import ENDING, other
from tests.unit.operate.conftest import aws, dynamo, dynamo_server, real
from tests.unit.operate.sessions_now import alive

__all__ = ["aws", "dynamo", "dynamo_server", "real"]


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch, aws: Dynamo) -> Iterator[CallbackServer]:
    """The API, where EMISSARY_URL says."""
    with CallbackServer() as server:
        monkeypatch.setenv("EMISSARY_URL", server.url.replace("http:", "ws:"))
        yield server


def run(*arguments: str) -> int:
    return cli.main(["sessions", *arguments, "--table", TABLE])


def test_a_list_has_a_line_for_each_session(
    aws: Dynamo, real: DynamoSessionStore, capsys: pytest.CaptureFixture[str]
) -> None:
    alive(real)
    assert run("list") == Exit.OK
    heading, line = capsys.readouterr().out.splitlines()
    assert heading.split()[:4] == ["session", "state", "key", "from"]
    assert line.split()[:4] == [SESSION[:16], "open", "1", "203.0.113.7"]
    assert line.endswith("  db.internal:5432")


def test_a_list_as_json_is_whole(
    aws: Dynamo, real: DynamoSessionStore, capsys: pytest.CaptureFixture[str]
) -> None:
    session = alive(real)
    assert run("list", "--alive", "--json") == Exit.OK
    (found,) = json.loads(capsys.readouterr().out)
    assert found.pop("started").startswith("20")
    assert found == {
        "session": session.id,
        "state": "open",
        "key_id": 1,
        "source": "203.0.113.7",
        "target": "db.internal:5432",
        "shared": False,
        "connections": None,
        "connections_open": None,
        "connections_refused": None,
        "ended": None,
        "code": None,
        "reason": "",
        "dialer_bytes": 0,
        "relay_bytes": 0,
        "dialer_messages": 0,
        "relay_messages": 0,
        "reported_by": None,
        "implausible": False,
    }


def listed(capsys: pytest.CaptureFixture[str]) -> tuple[dict[str, object], str]:
    """The one session of the table, as JSON and as its line."""
    assert run("list", "--json") == Exit.OK
    (found,) = json.loads(capsys.readouterr().out)
    assert run("list") == Exit.OK
    _, line = capsys.readouterr().out.splitlines()
    return found, line


def counts(found: dict[str, object]) -> list[object]:
    names = ("shared", "connections", "connections_open", "connections_refused")
    return [found[name] for name in names]


def test_a_shared_session_is_listed_with_its_connections_instead_of_a_target(
    aws: Dynamo, real: DynamoSessionStore, capsys: pytest.CaptureFixture[str]
) -> None:
    session = alive(real, target=str(SHARED_TARGET))
    found, line = listed(capsys)
    assert (found["target"], counts(found)) == ("emissary.mux.invalid:1", [True, None, None, None])
    assert line.endswith("  shared"), "nothing is known of its connections yet"
    real.note_connections(session.id, Connections(1, 1, 0))
    assert listed(capsys)[1].endswith("  shared: 1 connection, 1 open")
    real.note_connections(session.id, Connections(7, 2, 3))
    found, line = listed(capsys)
    assert (counts(found), line.endswith("  shared: 7 connections, 2 open")) == ([True, 7, 2, 3], True)
    ending = EndRecord(
        Code.OK, 5, 7, "request=", session.started + 9, 1, 1, reporter=Role.RELAY, connections=9
    )
    assert real.end(session.id, ending, RecordStep.END).done
    found, line = listed(capsys)
    assert (counts(found), line.endswith("  shared: 9 connections, OK")) == ([True, 9, 0, 3], True)


def test_a_shared_session_is_killed_with_all_its_connections(
    gateway: CallbackServer, real: DynamoSessionStore, capsys: pytest.CaptureFixture[str]
) -> None:
    alive(real, target=str(SHARED_TARGET))
    assert run("kill", SESSION[:12]) == Exit.OK
    said = capsys.readouterr().out
    assert said == f"{SESSION[:16]} killed with all its connections; relay: told, dialer: told\n"


def test_figures_that_cannot_be_are_listed_as_none(
    aws: Dynamo, real: DynamoSessionStore, capsys: pytest.CaptureFixture[str]
) -> None:
    session = alive(real)
    ending = EndRecord(Code.OK, 2**60, 7, "request=", session.started + 9, 1, 1, reporter=Role.DIALER)
    assert real.end(session.id, ending, RecordStep.END).done
    assert run("list", "--json") == Exit.OK
    (found,) = json.loads(capsys.readouterr().out)
    told = ("dialer_bytes", "relay_bytes", "dialer_messages", "relay_messages")
    assert [found[name] for name in told] == [None] * 4
    assert (found["reported_by"], found["implausible"]) == ("dialer", True)
    assert run("list") == Exit.OK
    _, line = capsys.readouterr().out.splitlines()
    assert line.split()[-5:] == ["9", "-", "-", "db.internal:5432,", "OK"]


def test_a_kill_tells_the_relay_and_then_the_dialer(
    gateway: CallbackServer, real: DynamoSessionStore, capsys: pytest.CaptureFixture[str]
) -> None:
    alive(real)
    assert run("kill", SESSION[:12]) == Exit.OK
    assert capsys.readouterr().out == f"{SESSION[:16]} killed; relay: told, dialer: told\n"
    assert [(each.method, unquote(each.path)) for each in gateway.asked] == [
        ("POST", f"/emissary/@connections/{connection}") for connection in (RELAY, DIALER)
    ]
    for asked in gateway.asked:
        frame = decode(asked.body)
        assert (frame.type, frame.generation) == (FrameType.ENDED, 2)
        assert Ended.decode(frame.payload) == Ended(Code.KILLED, 0, 0, MEANINGS[Code.KILLED])
    session = real.session(SESSION)
    assert session is not None
    assert session.ending is not None
    assert session.ending.code is Code.KILLED


@pytest.mark.parametrize("url", [[], ["--url", "wss://api.example/stage"]])
def test_both_sides_are_told_where_the_functions_post_to(
    aws: Dynamo,
    real: DynamoSessionStore,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: pathlib.Path,
    url: list[str],
) -> None:
    """An emulator's @connections, which has no stage."""
    alive(real)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EMISSARY_URL", raising=False)
    with CallbackServer() as server:
        origin = server.url.removesuffix("/emissary")
        monkeypatch.setenv("AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI", origin)
        assert run("kill", SESSION, *url) == Exit.OK
    assert [unquote(each.path) for each in server.asked] == [
        f"/@connections/{connection}" for connection in (RELAY, DIALER)
    ]


@pytest.mark.parametrize(
    ("status", "error_type", "outcome", "requests", "ends"),
    [
        (410, "GoneException", "gone", {"POST"}, Exit.OK),
        (410, "", "gone", {"POST"}, Exit.OK),
        (403, "ForbiddenException", "not reached", {"POST", "DELETE"}, Exit.NOT_DONE),
    ],
)
def test_a_side_that_cannot_be_told_is_named(
    gateway: CallbackServer,
    real: DynamoSessionStore,
    capsys: pytest.CaptureFixture[str],
    status: int,
    error_type: str,
    outcome: str,
    requests: set[str],
    ends: Exit,
) -> None:
    alive(real)
    gateway.status = status
    gateway.error_type = error_type
    assert run("kill", SESSION, "--json") == ends
    printed = capsys.readouterr()
    (said,) = json.loads(printed.out)
    assert (said["outcome"], said["relay"], said["dialer"]) == ("killed", outcome, outcome)
    assert {each.method for each in gateway.asked} == requests
    assert ("relay and dialer could be neither told nor cut off" in printed.err) == (ends is Exit.NOT_DONE)


def test_all_sessions_of_a_key_can_be_killed(
    gateway: CallbackServer, real: DynamoSessionStore, capsys: pytest.CaptureFixture[str]
) -> None:
    alive(real)
    alive(real, other(7, key_id=2))
    assert run("kill", "--key", "1") == Exit.OK
    assert capsys.readouterr().out.splitlines() == [f"{SESSION[:16]} killed; relay: told, dialer: told"]
    assert run("kill", "--key", "1") == Exit.NOT_DONE
    assert "no session of key 1 is alive" in capsys.readouterr().err


def three(store: DynamoSessionStore) -> list[str]:
    """The ids of three open sessions of key 1, in the order in which they are killed: the newest first."""
    return [alive(store, session).id for session in (other(1), other(2), other(3))][::-1]


def ends_by_itself(store: DynamoSessionStore, session: str) -> Callable[[], object]:
    return lambda: store.end(session, ENDING, RecordStep.END)


def outcomes(capsys: pytest.CaptureFixture[str]) -> list[tuple[str, str]]:
    return [(each["session"], each["outcome"]) for each in json.loads(capsys.readouterr().out)]


def test_a_session_that_ends_meanwhile_keeps_no_other_of_its_key_alive(
    gateway: CallbackServer, real: DynamoSessionStore, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, third = three(real)
    gateway.meanwhile = ends_by_itself(real, second)
    assert run("kill", "--key", "1", "--json") == Exit.OK
    assert outcomes(capsys) == [(first, "killed"), (second, "had ended already"), (third, "killed")]
    ended = real.session(second)
    assert ended is not None
    assert ended.ending == ENDING
    assert len(gateway.asked) == 4, "nobody is told of a kill that was none"


def test_a_session_that_is_named_and_has_ended_is_an_error_and_the_others_are_killed(
    gateway: CallbackServer, real: DynamoSessionStore, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, third = three(real)
    ends_by_itself(real, second)()
    assert run("kill", second, third, "--key", "1") == Exit.NOT_DONE
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [
        f"{second[:16]} had ended already",
        f"{third[:16]} killed; relay: told, dialer: told",
        f"{first[:16]} killed; relay: told, dialer: told",
    ]
    assert printed.err == f"emissary: session {second[:16]} had ended already\n"


def test_a_session_that_is_meant_twice_is_killed_once(
    gateway: CallbackServer, real: DynamoSessionStore, capsys: pytest.CaptureFixture[str]
) -> None:
    alive(real)
    assert run("kill", SESSION, SESSION[:12], "--key", "1", "--json") == Exit.OK
    assert outcomes(capsys) == [(SESSION, "killed")]


def test_what_aws_refuses_for_one_session_is_told_and_the_others_are_killed(
    gateway: CallbackServer, aws: Dynamo, real: DynamoSessionStore, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, third = three(real)
    gateway.meanwhile = lambda: setattr(aws, "conflicts", 1)
    assert run("kill", "--key", "1", "--json") == Exit.NOT_DONE
    printed = capsys.readouterr()
    said = json.loads(printed.out)
    assert [each["outcome"] for each in said] == ["killed", "not killed", "killed"]
    assert said[1]["cause"].startswith("AWS refused UpdateItem: TransactionConflictException")
    assert f"session {second[:16]} was not killed: AWS refused UpdateItem" in printed.err
    assert [real_code(real, each) for each in (first, second, third)] == [Code.KILLED, None, Code.KILLED]


def test_who_has_been_killed_is_said_even_if_the_command_is_interrupted(
    aws: Dynamo, real: DynamoSessionStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, *_ = three(real)
    told: list[str] = []

    def interrupted(_client: object, session: SessionRecord) -> dict[str, str]:
        if told:
            raise KeyboardInterrupt
        told.append(session.id)
        return {"relay": "told", "dialer": "told"}

    monkeypatch.setattr(kill, "tell_ended", interrupted)
    assert run("kill", "--key", "1", "--json", "--url", "wss://example/emissary") == Exit.INTERRUPTED
    assert outcomes(capsys) == [(first, "killed")]


def real_code(store: DynamoSessionStore, session: str) -> Code | None:
    found = store.session(session)
    assert found is not None
    return None if found.ending is None else found.ending.code


def test_a_session_that_is_not_there_kills_nothing(
    gateway: CallbackServer, real: DynamoSessionStore, capsys: pytest.CaptureFixture[str]
) -> None:
    alive(real)
    assert run("kill", SESSION, "ffffffff") == Exit.NOT_DONE
    assert "there is no session ffffffff" in capsys.readouterr().err
    assert gateway.asked == []
    session = real.session(SESSION)
    assert session is not None
    assert session.ending is None


def test_without_a_url_nobody_is_killed(
    aws: Dynamo,
    real: DynamoSessionStore,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    alive(real)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EMISSARY_URL", raising=False)
    assert run("kill", SESSION) == Exit.SETTINGS
    assert "EMISSARY_URL is not set; give --url" in capsys.readouterr().err
    session = real.session(SESSION)
    assert session is not None
    assert session.ending is None


def test_neither_session_nor_key_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("kill")
    assert "name a SESSION, or a --key" in capsys.readouterr().err
