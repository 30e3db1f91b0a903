"""What an operator does while sessions run: rotate keys, look at limits, see who is in, put somebody out."""

from __future__ import annotations

import json
import socket
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from emissary_lib import AuthenticationError, Dialer
from emissary_lib.cli import main as cli
from emissary_lib.exceptions import SessionLimitError
from emissary_lib.exit_status import Exit
from emissary_lib.protocol.auth.keys import parse_keys
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.wire.health import Usage
from emissary_local import LocalCloud
from tests.helpers.kinds import OWN
from tests.helpers.local_cloud import (
    DIAL,
    LINUX_ONLY,
    PARAMETERS,
    TEMPLATE,
    audit_record,
    dialer_of,
    eventually,
    json_lines,
    relay_returned,
)
from tests.helpers.patience import HANG, wait_until

pytestmark = [LINUX_ONLY, pytest.mark.slow]

LIMITS = {**PARAMETERS, "MaxSessions": "3", "MaxSessionsPerKey": "2"}


@pytest.fixture(scope="module")
def cloud() -> Iterator[LocalCloud]:
    with LocalCloud(TEMPLATE, parameters=LIMITS) as running:
        yield running


@pytest.fixture
def operator(cloud: LocalCloud, monkeypatch: pytest.MonkeyPatch) -> LocalCloud:
    """The cloud, with its operator's credentials in the environment."""
    for name, value in {**cloud.operator, "EMISSARY_URL": cloud.url}.items():
        monkeypatch.setenv(name, value)
    return cloud


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """A command's JSON."""
    assert cli.main([*arguments, "--json"]) == Exit.OK
    return json.loads(capsys.readouterr().out)


def answers(sock: socket.socket) -> bool:
    sock.settimeout(HANG)
    sock.sendall(b"ping")
    return sock.recv(4) == b"ping"


def ended(cloud: LocalCloud, sock: Any) -> dict[str, Any]:
    """The audit record of a tunnel that is closed now."""
    sock.close()
    return audit_record(cloud, sock.session.id)


def test_keys_are_rotated_under_a_session_that_goes_on(
    operator: LocalCloud, target: tuple[str, int], capsys: pytest.CaptureFixture[str]
) -> None:
    (secret,) = operator.secrets.values()
    old = operator.key
    with OWN.dialer(operator.url, old) as before, before.dial(target, DIAL) as sock:
        made = run(capsys, "keys", "new", "--secret", secret)
        (new,) = parse_keys(json.dumps(made))
        with OWN.dialer(operator.url, new) as after:
            assert lets_in(after), "at once, though warm functions remember the keys of before"
            with after.dial(target, DIAL) as other:
                assert answers(other)
                assert answers(sock)
                ended(operator, other)
            assert run(capsys, "keys", "retire", str(old.key_id), "--secret", secret)["keys"] == [new.key_id]
            assert [each["kid"] for each in run(capsys, "keys", "list", "--secret", secret)] == [new.key_id]
            operator.retire()  # what is warm remembers the old key for five minutes
            with pytest.raises(AuthenticationError, match="is unknown there"):
                before.dial(target, DIAL)

            def only_new() -> bool:
                operator.retire()  # once more: what was busy then was left
                return after.health(DIAL).key_ids == (new.key_id,)

            wait_until(only_new, "the new key alone")
            assert answers(sock), "whoever is in stays in"
        ended(operator, sock)
    operator.rotate_keys([old])  # as it was, for the other tests
    operator.retire()
    with Dialer(operator.url, old) as before:
        wait_until(lambda: lets_in(before), "the old key again")


def lets_in(dialer: Dialer) -> bool:
    try:
        dialer.health(DIAL)
    except AuthenticationError:
        return False
    return True


def test_a_dial_beyond_a_limit_names_it_and_a_place_that_is_free_is_taken(
    cloud: LocalCloud, target: tuple[str, int]
) -> None:
    with dialer_of(cloud, **OWN.options) as dialer:
        first, second = dialer.dial(target, DIAL), dialer.dial(target, DIAL)
        limit = f"limit of 2 sessions for key {cloud.key.key_id} reached"
        with pytest.raises(SessionLimitError, match=limit) as caught:
            dialer.dial(target, DIAL)
        assert caught.value.code is Code.SESSION_LIMIT
        health = dialer.health(DIAL)
        assert (health.usage, health.key_usage) == (Usage(2, 3), Usage(2, 2))
        assert answers(first)
        assert answers(second)
        ended(cloud, first)
        with dialer.dial(target, DIAL) as third:
            assert answers(third)
            ended(cloud, third)
        ended(cloud, second)
        wait_until(lambda: dialer.health(DIAL).usage == Usage(0, 3), "both places, free again")


def test_a_health_check_starts_no_relay_and_leaves_no_record(
    operator: LocalCloud, capsys: pytest.CaptureFixture[str]
) -> None:
    table = operator.tables["SessionTable"]
    known = run(capsys, "sessions", "list", "--all", "--table", table)
    with dialer_of(operator, **OWN.options) as dialer:
        health = dialer.health(DIAL)
    assert health.key_ids == (operator.key.key_id,)
    listed = run(capsys, "sessions", "list", "--all", "--table", table)
    (checked,) = (each for each in listed if each not in known)
    assert (checked["state"], checked["code"], checked["target"]) == ("ended", "OK", None)
    assert checked["session"] not in operator.logs("RelayFunction")
    lines = [line for line in json_lines(operator) if checked["session"] in str(line)]
    assert [line["message"] for line in lines] == ["dialer admitted"]


def test_a_killed_session_is_reset_on_both_sides_and_recorded_once(
    operator: LocalCloud, target: tuple[str, int], capsys: pytest.CaptureFixture[str]
) -> None:
    table = operator.tables["SessionTable"]
    with dialer_of(operator, **OWN.options) as dialer, dialer.dial(target, DIAL) as sock:
        assert answers(sock)
        assert sock.session is not None
        (alive,) = run(capsys, "sessions", "list", "--alive", "--table", table)
        assert (alive["session"], alive["state"]) == (sock.session.id, "open")
        assert (alive["target"], alive["source"]) == (f"{target[0]}:{target[1]}", "127.0.0.1")
        (killed,) = run(capsys, "sessions", "kill", alive["session"][:16], "--table", table)
        assert (killed["relay"], killed["dialer"]) == ("told", "told")
        sock.settimeout(HANG)
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
        error = sock.session.error
        assert error is not None
        assert error.code is Code.KILLED
        assert "an operator ended the session (KILLED)" in str(error)
        record = audit_record(operator, sock.session.id)
        assert (record["code"], record["key_id"]) == ("KILLED", operator.key.key_id)
        assert dialer.health(DIAL).usage.sessions == 0, "its place is free"
    assert run(capsys, "sessions", "list", "--alive", "--table", table) == []
    assert relay_returned(operator, alive["session"]) == "KILLED"


def test_figures_tell_of_sessions_and_never_of_messages(cloud: LocalCloud, target: tuple[str, int]) -> None:
    names = {"ConnectAccepted", "SessionOpened", "SessionEnded"}

    def lines() -> Counter[str]:
        return Counter(json.dumps(line) for line in json_lines(cloud) if "_aws" in line)

    def told_since() -> list[dict[str, Any]] | None:
        new = [json.loads(line) for line in (lines() - before).elements()]
        return new if names <= {name for each in new for name in each} else None

    before = lines()
    with dialer_of(cloud, **OWN.options) as dialer, dialer.dial(target, DIAL) as sock:
        for _ in range(20):
            assert answers(sock)
        ended(cloud, sock)
    told = eventually(told_since, "the figures")
    assert {each["service"] for each in told} == {told[0]["service"]}
    counted = [name for each in told for name in each if name in names | {"SessionFailed"}]
    assert sorted(counted) == ["ConnectAccepted"] * 2 + ["SessionEnded", "SessionFailed", "SessionOpened"]
    (end,) = (each for each in told if "SessionEnded" in each)
    assert end["SessionFailed"] == [0.0]
    assert end["SessionBytes"][0] > 2 * 20 * 4
    (opened,) = (each for each in told if "SessionOpened" in each)
    assert 0 < opened["DialMilliseconds"][0] < DIAL * 1000
