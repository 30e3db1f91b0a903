"""What a client may report of the end, and which figures are believed."""

from __future__ import annotations

import re
from typing import Any

import pytest

from emissary_lib.bridge.report import REPORTABLE, Figures, figures, reported_end
from emissary_lib.bridge.session import EndRecord, RecordState, SessionRecord
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.record import replace
from emissary_lib.protocol.role import Role
from emissary_lib.protocol.wire.payloads import End
from tests.helpers.events import DATE, HOST, NONCE, NOW, SESSION
from tests.infra.documents import read

#: Of either client: it ends so itself, or hears so from its peer's RESET or OPENED.
OF_BOTH = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 32, 33, 34, 35, 36, 37}
SENT = End(Code.OK, 100, 200, 3, 4)


def test_each_client_reports_what_it_can_know() -> None:
    assert REPORTABLE[Role.RELAY] == OF_BOTH
    assert REPORTABLE[Role.DIALER] == OF_BOTH | {38, 39, 40}


def test_the_protocol_names_what_is_left_out() -> None:
    text = " ".join(read("docs/protocol.md").split())
    (rule,) = re.findall(r"\*\*6-18\*\* (.*?) An END with such a code", text)
    nobody, no_relay = (re.findall(r"`([A-Z_]+)`", part) for part in rule.split("nor, from a relay,"))
    assert {Code[name] for name in nobody} == set(Code) - REPORTABLE[Role.DIALER]
    assert {Code[name] for name in nobody + no_relay} == set(Code) - REPORTABLE[Role.RELAY]


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("code", Code)
def test_what_a_client_cannot_know_is_a_protocol_error_that_names_it(role: Role, code: Code) -> None:
    ending = reported_end(role, End(code, 1, 2), by="request=", at=NOW)
    if code in REPORTABLE[role]:
        assert (ending.code, ending.reason) == (code, "")
    else:
        assert ending.code is Code.PROTOCOL_ERROR
        assert ending.text == f"the {role.value} reported {code.name}, which it cannot know"


@pytest.mark.parametrize(
    ("role", "told"), [(Role.DIALER, Figures(100, 200, 3, 4)), (Role.RELAY, Figures(200, 100, 4, 3))]
)
def test_figures_are_of_the_sides_whoever_reports_them(role: Role, told: Figures) -> None:
    ending = reported_end(role, SENT, by="request=", at=NOW)
    assert figures(ended(ending)) == told
    assert ending.reported_by == role.value


@pytest.mark.parametrize(("role", "told"), [(Role.RELAY, 7), (Role.DIALER, None)])
def test_only_a_relay_is_believed_how_many_connections_there_were(role: Role, told: int | None) -> None:
    end = End(Code.OK, 100, 200, 3, 4, connections=7)
    assert reported_end(role, end, by="request=", at=NOW).connections == told
    assert reported_end(role, SENT, by="request=", at=NOW).connections is None


def test_nobody_reports_for_the_bridge() -> None:
    assert EndRecord(Code.SESSION_LIMIT, 0, 0, "request=", NOW).reported_by == "bridge"


def test_a_session_that_has_not_ended_has_no_figures() -> None:
    assert figures(replace(ended(), state=RecordState.OPEN, ending=None)) is None


def ended(ending: EndRecord | None = None) -> SessionRecord:
    session = SessionRecord(SESSION, 1, NONCE, DATE, HOST, NOW, NOW + 60, 0)
    return replace(session, state=RecordState.ENDED, ending=ending)


@pytest.mark.parametrize("age", [0.0, 0.5, 900.0])
@pytest.mark.parametrize("name", ["dialer_final", "relay_final", "dialer_messages", "relay_messages"])
def test_more_than_the_time_allows_is_not_believed(name: str, age: float) -> None:
    messages = int(2000 * (age + 1))
    most = messages * (94_476 if name.endswith("final") else 1)
    ending = EndRecord(Code.OK, 1, 1, "request=", NOW + age, 1, 1)
    possible: dict[str, Any] = {name: most}
    one_more: dict[str, Any] = {name: most + 1}
    assert figures(ended(replace(ending, **possible))) is not None
    assert figures(ended(replace(ending, **one_more))) is None


def test_an_end_before_the_beginning_is_as_one_at_once() -> None:
    """The handlers' clocks differ."""
    ending = EndRecord(Code.OK, 400, 600, "request=", NOW - 5, 3, 4)
    assert figures(ended(ending)) == Figures(400, 600, 3, 4)
