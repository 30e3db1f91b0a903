"""Figures for CloudWatch: their form, and when each is written."""

from __future__ import annotations

import io
import json
import re
import sys
import time
from typing import Any

import pytest

from emissary_lib.bridge.session import OPERATOR, EndRecord, RecordStep
from emissary_lib.protocol.auth.macs import encode_unpadded, sign_connect
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.constants import CLOCK_SKEW, OPENING_TIME
from emissary_lib.protocol.wire.frames import Frame, FrameType
from emissary_lib.protocol.wire.payloads import End
from functions.common import metrics
from functions.common.adapters.emf import use_emf
from functions.common.metrics import Metric
from functions.common.responses import MessageNotHandledError
from tests.helpers.events import DATE, DIALER, KEY, NONCE, RELAY, SESSION, load_event
from tests.helpers.sam_template import source
from tests.infra.documents import prose, read
from tests.unit.functions.bridge import Bridge
from tests.unit.functions.conftest import Figures

#: What template.yaml's dashboard and alarms, and docs/operations.md, call them.
TITLES = {
    "ConnectAccepted",
    "AuthFailure",
    "ConnectRefused",
    "SessionOpened",
    "SessionEnded",
    "SessionFailed",
    "DialMilliseconds",
    "RelayError",
    "PeerThrottled",
    "SessionSeconds",
    "SessionBytes",
    "ConnectionOpened",
    "ConnectionFailed",
    "ConnectionMilliseconds",
}


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Standard output, with the figures set up as in Lambda."""
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    use_emf("my-stack")
    use_emf("my-stack")
    return out


def test_a_line_is_what_cloudwatch_reads(written: io.StringIO) -> None:
    before = int(time.time() * 1000)
    metrics.put({Metric.SESSION_ENDED: 1, Metric.SESSION_BYTES: 1234})
    (text,) = written.getvalue().splitlines()
    line: dict[str, Any] = json.loads(text)
    (directive,) = line["_aws"]["CloudWatchMetrics"]
    assert directive["Namespace"] == "Emissary"
    assert directive["Dimensions"] == [["service"]]
    assert {(each["Name"], each["Unit"]) for each in directive["Metrics"]} == {
        ("SessionEnded", "Count"),
        ("SessionBytes", "Bytes"),
    }
    assert (line["service"], line["SessionEnded"], line["SessionBytes"]) == ("my-stack", [1.0], [1234.0])
    assert before <= line["_aws"]["Timestamp"] <= int(time.time() * 1000)


def test_a_figure_of_one_line_is_not_in_the_next(written: io.StringIO) -> None:
    metrics.count(Metric.AUTH_FAILURE)
    metrics.count(Metric.RELAY_ERROR)
    assert [sorted(TITLES & set(json.loads(text))) for text in written.getvalue().splitlines()] == [
        ["AuthFailure"],
        ["RelayError"],
    ]


def test_outside_lambda_nothing_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    metrics.count(Metric.AUTH_FAILURE)
    assert capsys.readouterr().out == ""


def test_the_names_are_those_that_dashboard_and_alarms_have() -> None:
    assert {metric.title for metric in Metric} == TITLES
    assert {metric.unit for metric in Metric} == {"Count", "Seconds", "Milliseconds", "Bytes"}


def test_each_upgrade_is_accepted_refused_or_a_failure_of_authentication(figures: Figures) -> None:
    bridge = Bridge()
    wrong = load_event("connect_dialer", headers={"X-Emissary-Mac": encode_unpadded(KEY.secret)})
    for event in (wrong, load_event("connect_dialer", headers={"X-Emissary-Mac": None})):
        bridge.connect(event)
    bridge.open()
    bridge.connect(load_event("connect_dialer", connection_id="replay="))
    bridge.store.down = True
    bridge.connect(load_event("connect_dialer"))
    assert figures.lines == [
        {"AuthFailure": 1},
        {"AuthFailure": 1},
        {"ConnectAccepted": 1},
        {"ConnectAccepted": 1},
        {"ConnectRefused": 1},
        {"ConnectRefused": 1},
    ]


OTHER_HOST = sign_connect(KEY, date=DATE, nonce=NONCE, host="db.example").to_headers()


@pytest.mark.parametrize(
    ("cause", "headers", "later"),
    [
        ("no or a wrong signature", {"X-Emissary-Mac": None}, 0),
        ("no or a wrong signature", {"X-Emissary-Mac": encode_unpadded(KEY.secret)}, 0),
        ("one for another host", dict(OTHER_HOST), 0),
        ("an unknown key", {"X-Emissary-Key-Id": "7"}, 0),
        ("a clock that is off", {}, CLOCK_SKEW + 1),
    ],
)
def test_what_the_alarm_over_failures_of_authentication_names_is_what_it_counts(
    figures: Figures, cause: str, headers: dict[str, str | None], later: float
) -> None:
    bridge = Bridge()
    bridge.clock.now += later
    bridge.connect(load_event("connect_dialer", headers=headers))
    assert figures.lines == [{"AuthFailure": 1}]
    assert cause in source()["Resources"]["AuthFailuresAlarm"]["Properties"]["AlarmDescription"]
    manual = prose(read("docs/operations.md"))
    assert re.search(rf"`AuthFailuresAlarm` \| [^|]*{cause}", manual)
    assert re.search(rf"`AuthFailure` \| `\$connect` \| [^|]*{cause}", manual)


@pytest.mark.parametrize(("code", "failed"), [(Code.OK, 0), (Code.TARGET_RESET, 1)])
def test_the_end_of_a_session_is_one_line_however_often_it_is_reported(
    figures: Figures, code: Code, failed: int
) -> None:
    bridge = Bridge()
    bridge.open()
    figures.lines.clear()
    bridge.clock.now += 90
    end = Frame(FrameType.END, generation=2, payload=End(code, 400, 600).encode())
    for sender in (DIALER, RELAY):
        bridge.send(sender, end, request_id=f"of {sender}")
    assert figures.lines == [
        {"SessionEnded": 1, "SessionFailed": failed, "SessionSeconds": 90, "SessionBytes": 1000}
    ]


def test_a_throttled_post_is_counted_whether_or_not_the_sender_is_told(figures: Figures) -> None:
    bridge = Bridge()
    bridge.open()
    figures.lines.clear()
    bridge.link.busy.add(RELAY)
    with pytest.raises(MessageNotHandledError):
        bridge.message(load_event("default_data"))
    assert figures.lines == [{"PeerThrottled": 1}]
    bridge.disconnect(load_event("disconnect_dialer"))
    assert figures.lines == [{"PeerThrottled": 1}] * 2


def test_a_question_for_health_is_no_session(figures: Figures) -> None:
    bridge = Bridge()
    bridge.admit()
    bridge.send(DIALER, Frame(FrameType.HEALTH, generation=1, payload=bytes(8)))
    bridge.disconnect(load_event("disconnect_dialer"))
    assert figures.lines == [{"ConnectAccepted": 1}]


@pytest.mark.parametrize(
    ("first", "last"), [("disconnect_dialer", "disconnect_relay"), ("disconnect_relay", "disconnect_dialer")]
)
def test_what_an_operator_ended_is_recorded_when_the_last_connection_has_gone(
    figures: Figures, caplog: pytest.LogCaptureFixture, first: str, last: str
) -> None:
    bridge = Bridge()
    bridge.open()
    bridge.store.end(SESSION, EndRecord(Code.KILLED, 0, 0, f"{OPERATOR}1", bridge.clock.now), RecordStep.END)
    figures.lines.clear()
    caplog.set_level("INFO", logger="emissary")
    caplog.clear()
    bridge.disconnect(load_event(first))
    assert (figures.lines, caplog.messages) == ([], [])
    bridge.disconnect(load_event(last))
    assert figures.total("SessionEnded") == 1
    (record,) = (each for each in caplog.records if each.name == "emissary")
    assert (record.message, record.__dict__["code"]) == ("session ended", "KILLED")


def test_the_start_of_a_dial_can_be_told_from_its_end() -> None:
    """The relay computes how long a dial took from the only moment that its event names."""
    bridge = Bridge()
    bridge.launch()
    (event,) = bridge.launcher.events
    assert event["expires"] - OPENING_TIME == bridge.session.started
