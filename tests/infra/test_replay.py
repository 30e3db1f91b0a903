"""Replays: events move to the present and results back; what differs is found and shown."""

from __future__ import annotations

import copy
import json
import pathlib
import sys
from typing import Any

import pytest

from emissary_lib.protocol.auth.macs import (
    ConnectHeaders,
    KeyRing,
    OpeningHeaders,
    encode_unpadded,
    signed_host,
    token_hash,
    verify_connect,
    verify_opening,
    verify_socks_password,
)
from emissary_lib.protocol.errors import AuthenticationError
from emissary_lib.protocol.wire.frames import decode
from emissary_local.emissary import Emissary
from emissary_local.lambda_.variables import Endpoints
from emissary_local.template.template import read_template
from tests.helpers.local_cloud import LINUX_ONLY, ROOT
from tools.replay import cases, example
from tools.replay.__main__ import main
from tools.replay.errors import ReplayError
from tools.replay.items import from_dynamodb, to_dynamodb
from tools.replay.moment import Moment
from tools.replay.results import difference
from tools.replay.run import Replayer
from tools.replay.sam import SamReplayer, template

pytestmark = LINUX_ONLY

#: Some day in another year.
NOW = 1_900_000_017.0
RING = KeyRing([example.KEY])

#: One case of each function; all of them are `make replay`.
ONE_EACH = ["connect_dialer", "default_opening", "disconnect_dialer", "relay_start"]


def verify(event: dict[str, Any], unix_now: float) -> None:
    host = signed_host(event["requestContext"]["domainName"])
    verify_connect(ConnectHeaders.from_headers(event["headers"]), RING, host=host, unix_now=unix_now)


# --- The cases


@pytest.mark.parametrize("name", cases.names())
def test_every_event_has_an_expectation_and_everything_that_it_names(name: str) -> None:
    case = cases.load(name)
    assert case.expected is not None
    assert "response" in case.expected
    assert "other_calls" not in case.expected
    assert case.about
    assert case.function.endswith("Function")
    assert isinstance(case.given, list)
    assert set(case.before) <= set(cases.names())


def test_there_is_no_expectation_without_an_event() -> None:
    assert {path.stem for path in cases.EXPECTED.glob("*.json")} == set(cases.names())


def test_what_the_opening_launches_is_the_event_that_starts_the_relay() -> None:
    (start,) = (cases.load("relay_start").event,)
    for name in ("default_opening", "default_opening_request"):
        expected = cases.load(name).expected
        assert expected is not None
        assert expected["launched"] == [start]


def test_what_the_door_writes_is_what_an_opening_is_given() -> None:
    expected = cases.load("connect_dialer").expected
    assert expected is not None
    assert expected["items"] == cases.load("default_opening").given


# --- The moment


def test_a_right_signature_is_right_again_in_the_present() -> None:
    event = Moment(NOW).to_present(cases.load("connect_dialer").event)
    verify(event, NOW)
    assert event["headers"]["X-Emissary-Mac"] == event["multiValueHeaders"]["X-Emissary-Mac"][0]


def test_what_an_upgrade_shows_is_signed_anew_too() -> None:
    event = Moment(NOW).to_present(cases.load("connect_opening").event)
    shown, door = OpeningHeaders.from_headers(event["headers"]), ConnectHeaders.from_headers(event["headers"])
    assert shown is not None
    host = signed_host(event["requestContext"]["domainName"])
    verify_opening(shown, example.KEY, date=door.date, nonce=door.nonce, host=host)
    assert door.date != example.DATE
    assert door.date.encode() in shown.stream


def test_a_wrong_signature_stays_wrong_and_a_late_one_late() -> None:
    moment = Moment(NOW)
    for name in ("connect_wrong_key", "connect_late"):
        with pytest.raises(AuthenticationError):
            verify(moment.to_present(cases.load(name).event), NOW)


def test_the_password_within_an_opening_is_made_anew() -> None:
    event = Moment(NOW).to_present(cases.load("default_opening").event)
    payload = decode(event["body"].encode()).payload
    size = payload[4]
    date, password = payload[5 : 5 + size].decode(), payload[6 + size : 6 + size + 48]
    assert date != example.DATE
    verify_socks_password(password, RING, date=date, nonce=example.NONCE)


@pytest.mark.parametrize("name", cases.names())
def test_an_event_moved_there_and_back_is_the_event(name: str) -> None:
    moment, event = Moment(NOW), cases.load(name).event
    there = moment.to_present(copy.deepcopy(event))
    back = moment.to_example(there)
    if "requestContext" in event:  # milliseconds are of no interest in results
        for field in ("requestTimeEpoch", "connectedAt"):
            assert (
                there["requestContext"][field] == event["requestContext"][field] + (NOW - example.NOW) * 1000
            )
            back["requestContext"][field] = event["requestContext"][field]
    assert back == event


def test_a_result_that_is_a_little_late_reads_as_on_time_and_a_wrong_one_does_not() -> None:
    moment = Moment(NOW)
    assert moment.to_example({"expires": NOW + 60 + 3.2}) == {"expires": example.NOW + 60}
    assert moment.to_example({"expires": NOW + 90}) == {"expires": example.NOW + 90}
    assert moment.to_example({"purge_at": 17, "epoch": 1}) == {"purge_at": 17, "epoch": 1}


def test_a_drawn_token_reads_as_the_example_s_and_so_does_its_hash() -> None:
    moment, drawn = Moment(NOW), bytes(range(200, 232))
    moment.map_token(encode_unpadded(drawn), example.RELAY_TOKEN)
    assert moment.to_example([encode_unpadded(drawn), token_hash(drawn), token_hash(b"another")]) == [
        encode_unpadded(example.RELAY_TOKEN),
        token_hash(example.RELAY_TOKEN),
        token_hash(b"another"),
    ]


def test_items_are_read_and_written_alike() -> None:
    item: dict[str, dict[str, Any]] = {
        "pk": {"S": "S#1"},
        "expires": {"N": "1.5"},
        "epoch": {"N": "2"},
        "nonce": {"B": b"\0\xff"},
        "fragments": {"SS": ["a", "b"]},
    }
    assert to_dynamodb(from_dynamodb(item)) == item


# --- The comparison


def test_a_difference_is_shown_line_by_line() -> None:
    text = difference("case", {"response": {"statusCode": 200}}, {"response": {"statusCode": 403}})
    assert '-    "statusCode": 200\n' in text
    assert '+    "statusCode": 403\n' in text
    assert difference("case", {"a": 1}, {"a": 1}) == ""
    assert "make replay RECORD=1" in difference("case", None, {"a": 1})


def test_a_printed_event_is_of_now(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["event", "connect_dialer"]) == 0
    assert example.DATE not in capsys.readouterr().out


# --- The replay itself


@pytest.mark.parametrize("name", ONE_EACH)
def test_the_built_artifact_does_what_is_expected(artifacts: pathlib.Path, name: str) -> None:
    case = cases.load(name)
    with Replayer(ROOT / "template.yaml", artifacts) as replayer:
        assert difference(name, case.expected, replayer.replay(case)) == ""


def test_another_behaviour_is_a_difference(artifacts: pathlib.Path) -> None:
    """The event of one case with the expectation of another: a gate that cannot fail is none."""
    late, expected = cases.load("connect_late"), cases.load("connect_dialer").expected
    with Replayer(ROOT / "template.yaml", artifacts) as replayer:
        text = difference("connect_late", expected, replayer.replay(late))
    assert '-    "statusCode": 200' in text
    assert '+    "statusCode": 403' in text


def test_without_artifacts_it_says_what_to_do(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ReplayError, match="run: make build"):
        with Replayer(ROOT / "template.yaml", tmp_path):
            pass


# --- sam local invoke


@pytest.fixture
def sam(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return [sys.executable, "-W", "ignore", "-m", "tests.helpers.sam_without_docker"]


def test_what_sam_would_run_does_what_is_expected(artifacts: pathlib.Path, sam: list[str]) -> None:
    """With the variables that SAM's own code gives a container, and with stand-ins at another address."""
    with SamReplayer(ROOT / "template.yaml", artifacts, sam=sam, listen="127.0.0.2") as replayer:
        for name in ONE_EACH:
            case = cases.load(name)
            assert difference(name, case.expected, replayer.replay(case)) == ""


@pytest.mark.parametrize(
    "name", ["ConnectFunction", "DefaultFunction", "DisconnectFunction", "RelayFunction"]
)
def test_the_template_for_sam_has_values_and_leads_nowhere_but_to_the_stand_ins(
    name: str, tmp_path: pathlib.Path
) -> None:
    spec = read_template(ROOT / "template.yaml", {"AllowedTargets": "[]"}).functions[name]
    variables = {
        **spec.environment,
        **Endpoints(
            "http://127.0.0.1:1", "http://127.0.0.1:1/s", "ws://x/s", url_variables=Emissary.url_variables
        ).variables(),
    }
    document = template(spec, tmp_path, variables)
    ((logical_id, function),) = document["Resources"].items()
    assert logical_id == name
    assert "Fn::" not in json.dumps(document)
    assert '"Ref"' not in json.dumps(document)
    declared = function["Properties"]["Environment"]["Variables"]
    assert declared == variables
    for service in ("DYNAMODB", "LAMBDA", "SECRETS_MANAGER", "APIGATEWAYMANAGEMENTAPI"):
        assert declared[f"AWS_ENDPOINT_URL_{service}"].startswith("http://127.0.0.1:1")


def test_sam_gets_no_credentials_and_no_settings_of_whoever_runs_it(
    artifacts: pathlib.Path, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "somebody's")
    monkeypatch.setenv("EMISSARY_TABLE", "somebody's")
    seen = tmp_path / "seen"
    code = f"import json, os; open({str(seen)!r}, 'w').write(json.dumps(dict(os.environ))); print('{{}}')"
    with SamReplayer(ROOT / "template.yaml", artifacts, sam=[sys.executable, "-c", code]) as replayer:
        with replayer.environment("ConnectFunction", "http://127.0.0.1:1", "ws://127.0.0.1:1") as environment:
            assert environment.invoke({}) == {}
    given = json.loads(seen.read_text())
    assert "somebody's" not in given.values()
    assert given["AWS_ACCESS_KEY_ID"] == "replay"


def test_a_sam_without_docker_is_an_error_with_its_own_words(artifacts: pathlib.Path) -> None:
    code = "import sys; sys.exit('Error: no container runtime')"
    with SamReplayer(ROOT / "template.yaml", artifacts, sam=[sys.executable, "-c", code]) as replayer:
        with pytest.raises(ReplayError, match="gave no answer:\nError: no container runtime"):
            replayer.replay(cases.load("connect_dialer"))


def test_an_address_of_another_machine_is_an_error_that_says_what_to_do(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ReplayError, match=r"cannot listen on 192\.0\.2\.1 .*--listen"):
        with SamReplayer(ROOT / "template.yaml", tmp_path, listen="192.0.2.1"):
            pass
