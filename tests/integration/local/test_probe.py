"""The probe for AWS, against the local cloud: it finds exactly what the local cloud promises.

The promises stand in ``emissary_local/gateway/api.py`` and ``emissary_local/limits.py``.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator
from typing import Any, Final

import pytest

from emissary_local.cloud import Cloud
from emissary_local.faults import Faults
from tests.helpers.local_cloud import LINUX_ONLY, ROOT
from tools.probe import __main__ as command
from tools.probe.experiments import FLOOD, LENGTHS_IN, LENGTHS_OUT, LONG_POSTS, SERIAL, SHORT_POSTS, STATUSES
from tools.probe.questions import QUESTIONS

pytestmark = LINUX_ONLY

TEMPLATE: Final = ROOT / "tools" / "probe" / "template.yaml"

#: The 10 idle minutes are 18 s at this scale; no function is cut off before 5 s, the probe's not before 9.
SCALE: Final = 0.03
PACE: Final = ("--sleep", "12", "--idle", "30")

#: What only an account can tell, or only a name in DNS.
NOT_ANSWERED: Final = {8, 11, 14, 15, 16, 17}

ERROR: Final = '{{"message": "{}", "connectionId":"...", "requestId":"..."}}'


def run(url: str, *arguments: str) -> tuple[int, dict[int, dict[str, Any]]]:
    """The exit status, and the answers by their question's number."""
    written = io.StringIO()
    with contextlib.redirect_stdout(written):
        status = command.main([url, "--json", *PACE, *arguments])
    return status, {each["number"]: each for each in json.loads(written.getvalue())["questions"]}


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    with Cloud(TEMPLATE, time_scale=SCALE) as running:
        yield running
        assert running.denials() == []


@pytest.mark.slow
def test_it_finds_what_the_local_cloud_promises(cloud: Cloud) -> None:
    before = cloud.meter
    status, answers = run(cloud.url)
    assert status == 0
    bytes_out = answers[15]["findings"]["bytes_out"]
    cost = (cloud.meter - before).cost() + bytes_out * 0.09e-9
    assert (cost < 0.05, bytes_out < 50e6) == (True, True), "as docs/probe.md says"
    assert list(answers) == [question.number for question in QUESTIONS]
    not_answered = {number for number, each in answers.items() if each["verdict"] != "holds"}
    assert not_answered == NOT_ANSWERED
    found = {number: each["findings"] for number, each in answers.items()}

    came = {
        (each["characters"], each["frame"]): each["seen"] or each["otherwise"] for each in found[1]["cases"]
    }
    assert {case for case, seen in came.items() if seen != case[0]} == {(32_769, 32_769), (131_073, 32_768)}
    assert list(came) == list(LENGTHS_IN)
    assert all(seen == case[0] or seen.startswith("closed 1009") for case, seen in came.items())

    posts = {each["characters"]: (each["post"], each["received"]) for each in found[2]["cases"]}
    assert posts == {
        size: ("ok", size) if size <= 131_072 else ("413 PayloadTooLargeException", None)
        for size in LENGTHS_OUT
    }
    assert found[3] == {
        "post": "400 BadRequestException",
        "received": "silence",
        "intact": False,
        "sent_in": "closed 1003 'Binary is not supported'",
    }
    assert found[4] == {"statuses": {str(status): status for status in STATUSES}}
    assert (found[5]["taken"], found[5]["received"], found[5]["different"]) == (SERIAL[0],) * 3

    failed = ERROR.format("Internal server error")
    throttled = found[6]["error_frames"].pop(failed)
    assert throttled > 0
    assert found[6] == {"sent": FLOOD, "answered": FLOOD - throttled, "error_frames": {}, "end": None}
    assert (found[7]["fails"], found[7]["sleeps"]) == (failed, ERROR.format("Endpoint request timed out"))
    assert found[8] == {"name": False}
    closed = "Connection Closed Normally"
    assert found[9] == {
        "client": f"closed 1000 {closed!r}",
        "client_code": 1000,
        "disconnect_code": 1000,
        "disconnect_reason": closed,
    }
    idle = {
        name: (each["end"], each["answered_at_the_end"]) for name, each in found[10]["connections"].items()
    }
    away = "closed 1001 'Going away'"
    assert idle == {"pings": (away, None), "silent": (away, None), "talks": (None, True)}

    slow, fast, short = (found[12][name] for name in ("not_reading", "reading", "short"))
    assert slow["refusals"] == {"429 LimitExceededException": 1}
    assert 0 < slow["taken"] == slow["received"] == slow["first_refused"] < LONG_POSTS[0]
    assert (fast["taken"], fast["received"], fast["refusals"]) == (LONG_POSTS[0], LONG_POSTS[0], {})
    assert (short["taken"], short["received"], short["refusals"]) == (SHORT_POSTS[0], SHORT_POSTS[0], {})
    assert set(found[13].values()) == {"item"}


@pytest.mark.slow
def test_what_it_says_to_have_sent_is_what_the_cloud_has_metered(cloud: Cloud) -> None:
    before = cloud.meter
    status, answers = run(cloud.url, "--only", "5,15")
    metered, told = cloud.meter - before, answers[15]["findings"]
    assert status == 0
    assert told["message_units"] == metered.message_units_in + metered.message_units_out
    assert told["refused_connects"] == metered.refused_connects
    assert told["connects"] + told["refused_connects"] == metered.connects


@pytest.mark.slow
def test_where_long_messages_do_not_pass_it_says_so(cloud: Cloud) -> None:
    cloud.set_faults(Faults(long_refused=1.0))
    try:
        status, answers = run(cloud.url, "--only", "1,2")
    finally:
        cloud.set_faults(Faults())
    assert status == 1
    assert {number: each["verdict"] for number, each in answers.items()} == dict.fromkeys(
        (1, 2), "does not hold"
    )
    assert "126,000 in frames of 31,000: closed 1009" in answers[1]["why"]
    assert "126,000: nothing came; post: 413 PayloadTooLargeException" in answers[2]["why"]
    assert "31,000 in frames of 31,000: whole" in answers[1]["why"]
