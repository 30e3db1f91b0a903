"""``emissary doctor``: what it prints and with which status it ends."""

from __future__ import annotations

import io
import json
import pathlib
from typing import Any

import pytest

from emissary_lib.cli import main as cli
from emissary_lib.cli.doctor import run_doctor
from emissary_lib.client.settings import SettingsReader
from emissary_lib.exit_status import Exit
from emissary_lib.protocol.targets.allow_list import Target
from tests.helpers.doctor import (
    ENVIRON,
    KEY,
    TARGET,
    FakeClock,
    FakeNetwork,
    FakeProbe,
    dependencies,
    name_error,
)


def run(network: FakeNetwork, *probes: FakeProbe, **options: Any) -> tuple[Exit, str]:
    out = io.StringIO()
    given = {"target": TARGET, "reader": SettingsReader(ENVIRON, default_file=None), **options}
    status = run_doctor(out=out, dependencies=dependencies(network, *probes), **given)
    return status, out.getvalue()


@pytest.fixture
def network() -> FakeNetwork:
    return FakeNetwork(FakeClock())


def test_text_has_a_line_for_each_check_and_a_verdict(network: FakeNetwork) -> None:
    status, said = run(network, FakeProbe(network.clock), FakeProbe(network.clock, target_says=(b"S",)))
    assert status is Exit.OK
    assert "PostgreSQL answers, and offers TLS" in said
    assert said.rstrip().endswith("All checks passed.")


def test_a_failure_gives_its_status_and_what_to_do(network: FakeNetwork) -> None:
    network.unresolved = name_error()
    status, said = run(network)
    assert status is Exit.GATEWAY_NAME
    assert "FAILED    dns" in said
    assert "-> check the URL's spelling" in said
    assert said.rstrip().endswith("The check dns failed; exit status 20.")


def test_json_is_one_line_and_nothing_else(network: FakeNetwork) -> None:
    _status, said = run(network, FakeProbe(network.clock), json_line=True, target=None)
    assert said.count("\n") == 1
    assert json.loads(said)["ok"] is True


@pytest.mark.parametrize(
    ("port", "service", "heard"),
    [
        (5432, "auto", bytes.fromhex("0000000804d2162f")),
        (6379, "auto", b"PING\r\n"),
        (7000, "redis", b"PING\r\n"),
        (5432, "none", b""),
        (7000, "auto", b""),
    ],
)
def test_the_service_probe_follows_the_option_or_the_port(
    network: FakeNetwork, port: int, service: str, heard: bytes
) -> None:
    probe = FakeProbe(network.clock)
    run(network, FakeProbe(network.clock), probe, target=Target("db.internal", port), service=service)
    assert probe.heard == heard


@pytest.mark.parametrize("json_line", [False, True])
def test_no_secret_is_printed(network: FakeNetwork, json_line: bool) -> None:
    probes = FakeProbe(network.clock), FakeProbe(network.clock)
    _status, said = run(network, *probes, json_line=json_line)
    assert json.loads(ENVIRON["EMISSARY_AUTH_KEYS"])[0]["data"] not in said
    assert KEY.secret.hex() not in said


def test_the_command_line_reaches_it(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EMISSARY_URL", raising=False)
    monkeypatch.delenv("EMISSARY_AUTH_KEYS", raising=False)
    assert cli.main(["doctor", "db.internal:5432", "--json", "--service", "none", "--timeout", "3"]) == 3
    diagnosis = json.loads(capsys.readouterr().out)
    assert (diagnosis["failed_check"], diagnosis["target"], diagnosis["url"]) == (
        "configuration",
        "db.internal:5432",
        None,
    )


def test_a_service_that_is_not_known_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["doctor", "--service", "oracle"])
    assert ended.value.code == Exit.USAGE
    assert "postgres" in capsys.readouterr().err
