"""What a demo that breaks off leaves behind."""

from __future__ import annotations

from typing import Any

from emissary_local.aws.iam.report import Denial
from tools.demo import run

REFUSED = Denial("DefaultFunction", "lambda:InvokeFunction", "arn:relay", "DefaultFunction may not invoke it")


class Cloud:
    """A local cloud as its user sees it."""

    alive = True

    def logs(self) -> str:
        return "".join(f"line {number}\n" for number in range(30))

    def denials(self) -> list[Denial]:
        return [REFUSED, REFUSED]


def last_lines(cloud: Any) -> list[str]:
    return run._refusals_and_log(cloud).splitlines()


def test_the_lines_after_a_failure_name_each_refused_call_once_before_the_last_lines_of_the_log() -> None:
    blank, refused, heading, *lines = last_lines(Cloud())
    assert blank.strip() == ""
    assert refused == "    AWS refused a call: DefaultFunction may not invoke it"
    assert heading == "    The functions' last log lines:"
    assert lines == [f"    line {number}" for number in range(10, 30)]


def test_a_cloud_that_is_gone_is_asked_nothing() -> None:
    class Gone(Cloud):
        alive = False

        def denials(self) -> list[Denial]:
            raise AssertionError("it cannot answer")

    assert last_lines(Gone()) == ["    ", "    The functions' last log lines:"]
