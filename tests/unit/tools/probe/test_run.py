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
from tools.probe.account import is_behind
from tools.probe.connection import SUBPROTOCOL, ProbeError
from tools.probe.probe import Pace, Probe
from tools.probe.questions import QUESTIONS, Question
from tools.probe.run import Result, all_hold, run
from tools.probe.verdict import Findings, State, Verdict, holds_if

URL: Final = "wss://a1b2c3.execute-api.eu-west-1.amazonaws.com/probe"


class FakeAccount:
    """An account in which updates and metrics are done at once."""

    undone = 0

    def begin_update(self) -> None:
        pass

    def undo_update(self) -> None:
        self.undone += 1

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
    return list(run(Probe(URL), questions))


@pytest.mark.parametrize(
    ("failure", "why"), [(ProbeError("closed 1009"), "closed 1009"), (KeyError("size"), "KeyError: 'size'")]
)
def test_a_question_that_fails_is_not_answered_and_the_others_are(failure: Exception, why: str) -> None:
    asked = results(question(1, {"good": True}), question(2, failure), question(3, {"good": False}))
    assert [each.verdict.state for each in asked] == [State.HOLDS, State.OPEN, State.FAILS]
    assert asked[1].verdict.why == why


def test_a_finding_that_cannot_be_judged_is_not_answered_and_is_told() -> None:
    asked = results(question(1, {"bad": True}), question(2, {"good": True}))
    assert [each.verdict.state for each in asked] == [State.OPEN, State.HOLDS]
    assert (asked[0].verdict.why, asked[0].findings) == ("KeyError: 'good'", {"bad": True})


ARN: Final = "arn:aws:sts::111122223333:assumed-role/Admin/me@example.com"


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (f"no WebSocket to {URL}?status=400: refused", "no WebSocket to [url]?status=400: refused"),
        (f"no name A1B2C3.{URL[13:-6]}", "no name [host]"),
        ("no API a1b2c3 here", "no API [api] here"),
        (f"User: {ARN} may not", "User: [arn] may not"),
        ("account '111122223333'", "account '[account]'"),
        ("1111222233334 ms, a1b2c3d", "1111222233334 ms, a1b2c3d"),
    ],
)
def test_neither_url_nor_ids_of_the_account_get_into_a_report(said: str, shown: str) -> None:
    asked = results(question(1, ProbeError(said)), question(2, {"good": said, "frames": {said: [said]}}))
    first, second = json.loads(report.as_json(asked, url=URL, day="2026-11-29", seconds=3))["questions"]
    assert first["why"] == shown
    assert second["findings"] == {"good": shown, "frames": {shown: [shown]}}
    assert f"found:   {shown}\n" in report.as_text(asked, url=URL)


def test_a_name_of_ones_own_does_not_get_into_a_report_either() -> None:
    url = "wss://relay.example.com:8443/dev"
    asked = results(
        question(1, ProbeError("relay.example.com:8443, relay.example.com, not-relay.example.com"))
    )
    assert "[host], [host], not-relay.example.com" in report.as_text(asked, url=url)


def test_a_question_that_needs_the_account_says_how_to_find_out_by_hand() -> None:
    (asked,) = results(question(1, {"good": True}, by_hand="look in the console"))
    assert asked.verdict == Verdict(State.OPEN, "give --stack; or by hand: look in the console")


def test_only_what_does_not_hold_is_a_failure() -> None:
    assert all_hold(results(question(1, {"good": True}), question(2, ProbeError("no"))))
    assert not all_hold(results(question(1, {"good": True}), question(2, {"good": False})))


def test_the_text_says_what_follows_where_an_assumption_fails_and_only_there() -> None:
    assert report.as_text(results(question(1, {"good": False})), url=URL) == (
        " 1  DOES NOT HOLD  Is it?\n"
        "    assumed: It is.\n"
        "    found:   good is False\n"
        "    so:      It is not, so what.\n"
        "\n"
        "1 questions: 0 holds, 1 does not hold, 0 not answered"
    )
    assert "so:" not in report.as_text(results(question(1, {"good": True})), url=URL)


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
    capsys.readouterr()
    for text in ('{"questions": []}', "[]", "null", '{"questions": [{"number": 15}]}'):
        file.write_text(text)
        assert command.main(["--bill", str(file)]) == 2
        assert "its --json is wanted" in capsys.readouterr().err
    file.write_text("{")
    assert command.main(["--bill", str(file)]) == 2
    assert "cannot complete" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "numbers"),
    [
        (["--only", "1,2, 6", URL], [1, 2, 6]),
        ([URL, "--only", "1,2"], [1, 2]),
        (["--only", "1", "--only", "17", URL], [1, 17]),
    ],
)
def test_some_questions_are_asked_for_before_or_behind_the_url(
    arguments: list[str], numbers: list[int]
) -> None:
    given = command.parser().parse_args(arguments)
    assert (given.only, given.url) == (numbers, URL)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only", "18"], "'18' is no list of numbers from 1 to 17"),
        (["--only", "1,"], "'1,' is no list"),
        (["--idle", "-5"], "'-5' is no number of seconds above 0"),
        (["--idle", "0"], "'0' is no number of seconds"),
        (["--sleep", "nan"], "'nan' is no number of seconds"),
        (["--sleep", "inf"], "'inf' is no number of seconds"),
        (["--sleep", "long"], "'long' is no number of seconds"),
    ],
)
def test_what_cannot_be_asked_or_waited_for_is_refused(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        command.parser().parse_args([URL, *arguments])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


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


def serve(peer: Peer) -> None:
    while answer(peer):
        pass


def test_an_interrupted_run_prints_what_it_has_found(capsys: pytest.CaptureFixture[str]) -> None:
    def press(_probe: Probe) -> Findings:
        raise KeyboardInterrupt

    pressed = dataclasses.replace(question(2, {}), experiment=press)
    with WsServer(serve, subprotocol=SUBPROTOCOL) as server:
        asked = [question(1, {"good": True}), pressed, question(3, {"good": True})]
        assert command.main([server.url, "--json"], asked) == 130
    written = capsys.readouterr()
    assert [each["number"] for each in json.loads(written.out)["questions"]] == [1]
    assert written.err.endswith("probe: interrupted\n")


def test_who_is_interrupted_before_anything_was_asked_is_told_no_more(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def press(_stack: str) -> Any:
        raise KeyboardInterrupt

    assert command.main([URL, "--stack", "probe"], connect=press) == 130
    assert capsys.readouterr() == ("", "probe: interrupted\n")


class OtherAccount(FakeAccount):
    api = "z9y8x7"


def test_a_stack_that_is_not_the_urls_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    account: Any = OtherAccount()
    assert command.main([URL, "--stack", "probe"], connect=lambda _stack: account) == 2
    assert "the URL is of another stack than probe" in capsys.readouterr().err


def test_behind_a_name_of_ones_own_the_stack_is_not_checked_and_that_is_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    account: Any = OtherAccount()
    with WsServer(serve, subprotocol=SUBPROTOCOL) as server:
        arguments = [server.url, "--stack", "probe"]
        assert command.main(arguments, [question(1, {"good": True})], lambda _stack: account) == 0
    assert "is not checked" in capsys.readouterr().err


def test_the_stack_of_the_url_is_known_by_its_api() -> None:
    assert is_behind("a1b2c3", URL, "probe")


def test_an_update_that_cuts_a_connection_is_told_with_its_code() -> None:
    def cut(peer: Peer) -> None:
        answer(peer)
        peer.read_message()
        peer.send_close(1012, "Service restart")

    with WsServer(cut, subprotocol=SUBPROTOCOL) as server:
        asked = probe(server)
        found = experiments.update(asked)
    assert asked.account is not None
    assert vars(asked.account) == {"undone": 1}
    assert (found["update"], found["asked"], found["answered"]) == ("UPDATE_COMPLETE", 1, 0)
    assert (found["end"], found["end_code"]) == ("closed 1012 'Service restart'", 1012)


def test_an_update_that_could_not_be_watched_is_put_back_as_well() -> None:
    class Unseen(FakeAccount):
        def update_state(self) -> str:
            raise ProbeError("not authorized")

    account: Any = Unseen()
    with (
        WsServer(serve, subprotocol=SUBPROTOCOL) as server,
        pytest.raises(ProbeError, match="not authorized"),
    ):
        experiments.update(dataclasses.replace(probe(server), account=account))
    assert account.undone == 1


def test_what_the_throttle_did_not_let_through_is_counted_for_the_bill() -> None:
    def throttle(peer: Peer) -> None:
        for _ in range(20):
            answer(peer)
        for _ in range(experiments.FLOOD - 20):
            peer.read_message()
            peer.send_text('{"message": "Too many"}')
        peer.read_message()

    with WsServer(throttle, subprotocol=SUBPROTOCOL) as server:
        asked = probe(server)
        assert experiments.throttled(asked)["answered"] == 20
    assert asked.tally.throttled == 2 * (experiments.FLOOD - 20)
    assert asked.tally.units_in + asked.tally.units_out == 2 * experiments.FLOOD


def test_a_metric_is_looked_for_after_it_was_written() -> None:
    with WsServer(serve, subprotocol=SUBPROTOCOL) as server:
        assert experiments.metrics(probe(server))["sum"] == 1.0
