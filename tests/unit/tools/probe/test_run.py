"""A run: each question for itself, the reports, the exit status; and experiments that need an account."""

from __future__ import annotations

import dataclasses
import datetime
import json
import socket
from typing import Any, Final

import pytest

from tests.helpers.patience import HANG
from tests.helpers.ws_server import Peer, WsServer
from tools.probe import __main__ as command
from tools.probe import experiments, report
from tools.probe.connection import SUBPROTOCOL, ProbeError
from tools.probe.probe import Pace, Probe
from tools.probe.questions import QUESTIONS, Question
from tools.probe.run import Result, all_hold, run
from tools.probe.verdict import Findings, State, Verdict, holds_if

URL: Final = "wss://a1b2c3.execute-api.eu-west-1.amazonaws.com/probe"


class FakeAccount:
    """An account in which updates and metrics are done at once."""

    def begin_update(self) -> None:
        pass

    def update_state(self) -> str:
        return "UPDATE_COMPLETE"

    def metric_sum(self, run: str, now: datetime.datetime) -> float:
        return 1.0


def question(number: int, found: Findings | Exception, *, by_hand: str = "") -> Question:
    """A question whose experiment finds that, or fails; it holds if ``good`` is in what was found."""

    def experiment(_probe: Probe) -> Findings:
        if isinstance(found, Exception):
            raise found
        return found

    def judge(given: Findings) -> Verdict:
        return holds_if(given["good"], f"good is {given['good']}")

    return Question(number, "Is it?", "It is.", "It is not, so what.", experiment, judge, by_hand)


def results(*questions: Question) -> list[Result]:
    return run(Probe(URL), questions)


@pytest.mark.parametrize(
    ("failure", "why"), [(ProbeError("closed 1009"), "closed 1009"), (KeyError("size"), "KeyError: 'size'")]
)
def test_a_question_that_fails_is_not_answered_and_the_others_are(failure: Exception, why: str) -> None:
    asked = results(question(1, {"good": True}), question(2, failure), question(3, {"good": False}))
    assert [each.verdict.state for each in asked] == [State.HOLDS, State.OPEN, State.FAILS]
    assert asked[1].verdict.why == why


def test_a_question_that_needs_the_account_says_how_to_find_out_by_hand() -> None:
    (asked,) = results(question(1, {"good": True}, by_hand="look in the console"))
    assert asked.verdict == Verdict(State.OPEN, "give --stack; or by hand: look in the console")


def test_only_what_does_not_hold_is_a_failure() -> None:
    assert all_hold(results(question(1, {"good": True}), question(2, ProbeError("no"))))
    assert not all_hold(results(question(1, {"good": True}), question(2, {"good": False})))


def test_the_text_says_what_follows_where_an_assumption_fails_and_only_there() -> None:
    assert report.as_text(results(question(1, {"good": False}))) == (
        " 1  DOES NOT HOLD  Is it?\n"
        "    assumed: It is.\n"
        "    found:   good is False\n"
        "    so:      It is not, so what.\n"
        "\n"
        "1 questions: 0 holds, 1 does not hold, 0 not answered"
    )
    assert "so:" not in report.as_text(results(question(1, {"good": True})))


def test_the_json_has_everything_but_what_is_nobody_elses_business() -> None:
    text = report.as_json(results(question(1, {"good": True})), url=URL, day="2026-11-29", seconds=3.4)
    assert "a1b2c3" not in text
    told = json.loads(text)
    assert (told["region"], told["day"], told["seconds"]) == ("eu-west-1", "2026-11-29", 3)
    assert told["summary"] == {"holds": 1, "does not hold": 0, "not answered": 0}
    assert told["questions"] == [
        {
            "number": 1,
            "question": "Is it?",
            "assumes": "It is.",
            "verdict": "holds",
            "why": "good is True",
            "findings": {"good": True},
        }
    ]


def test_every_question_has_its_number_and_says_all_that_is_to_be_said() -> None:
    assert [each.number for each in QUESTIONS] == list(range(1, 18))
    for each in QUESTIONS:
        assert each.text.endswith("?")
        assert each.assumes.endswith(".")
        assert each.otherwise.endswith(".")
    assert {each.number for each in QUESTIONS if each.needs_account} == {11, 14, 16, 17}


def test_where_nobody_listens_nothing_is_asked(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:  # bound and not listening: nobody else gets the port
        taken.bind(("127.0.0.1", 0))
        assert command.main([f"ws://127.0.0.1:{taken.getsockname()[1]}/probe"]) == 2
    assert "probe: no WebSocket to ws://127.0.0.1" in capsys.readouterr().err


def test_a_file_that_is_no_run_cannot_be_completed(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "run.json"
    assert command.main(["--bill", str(file)]) == 2
    file.write_text('{"questions": []}')
    assert command.main(["--bill", str(file)]) == 2
    assert "its --json is wanted" in capsys.readouterr().err


def answer(peer: Peer) -> bool:
    """Answer one message as the function would; False if there was none."""
    text = peer.read_message()
    if text is None:
        return False
    asked = json.loads(text)
    peer.send_text(json.dumps({"answer": asked["op"], "id": asked["id"]}))
    return True


def probe(server: WsServer) -> Probe:
    account: Any = FakeAccount()
    return dataclasses.replace(Probe(server.url, Pace(patience=HANG)), account=account)


def test_an_update_that_cuts_a_connection_is_told_with_its_code() -> None:
    def cut(peer: Peer) -> None:
        answer(peer)
        peer.read_message()
        peer.send_close(1012, "Service restart")

    with WsServer(cut, subprotocol=SUBPROTOCOL) as server:
        found = experiments.update(probe(server))
    assert (found["update"], found["asked"], found["answered"]) == ("UPDATE_COMPLETE", 1, 0)
    assert (found["end"], found["end_code"]) == ("closed 1012 'Service restart'", 1012)


def test_a_metric_is_looked_for_after_it_was_written() -> None:
    def serve(peer: Peer) -> None:
        while answer(peer):
            pass

    with WsServer(serve, subprotocol=SUBPROTOCOL) as server:
        assert experiments.metrics(probe(server))["sum"] == 1.0
