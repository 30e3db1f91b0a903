"""A judge that could not condemn would prove nothing."""

from __future__ import annotations

import dataclasses

import pytest

from tests.ends.draw import Draw, draw
from tests.ends.run import TOLD, Result, local_cloud, run, table

RUN = Draw(1, 2, 1000, "closes", "good", 0, cold=False, latency="none", faults="none")
WELL = Result(RUN, 0, "", 1000, 1000, reached=True)
KILLED = dataclasses.replace(RUN, end="SIGKILL")
REFUSED = dataclasses.replace(RUN, target="refused")


@pytest.mark.parametrize(
    ("result", "kind"),
    [
        (WELL, "arrived whole"),
        (dataclasses.replace(WELL, draw=KILLED, status=137), "arrived whole"),
        (dataclasses.replace(WELL, err="lost", status=9), "whole, alarmed"),
        (dataclasses.replace(WELL, err="lost", status=9, arrived=999), "reported"),
        (dataclasses.replace(WELL, draw=KILLED, err="lost", status=137, arrived=999), "reported"),
        (dataclasses.replace(WELL, err="lost", status=TOLD, arrived=0, reached=False), "reported"),
        (Result(REFUSED, 11, "refused", 1000, 0, reached=False), "reported"),
        (dataclasses.replace(WELL, arrived=999), "wrong"),
        (dataclasses.replace(WELL, status=9, arrived=999), "wrong"),  # not a word
        (dataclasses.replace(WELL, err="lost", arrived=999), "wrong"),  # and the status says that all is well
        (dataclasses.replace(WELL, draw=KILLED, status=137, arrived=999), "wrong"),
        (dataclasses.replace(WELL, took=0, arrived=0, reached=False), "wrong"),  # nobody was ever dialled
        (dataclasses.replace(WELL, status=1), "wrong"),
        (dataclasses.replace(WELL, status=None), "wrong"),
        (dataclasses.replace(WELL, corrupt=True), "wrong"),
        (Result(REFUSED, 9, "refused", 1000, 0, reached=False), "wrong"),
        (Result(REFUSED, 0, "", 1000, 0, reached=False), "wrong"),
    ],
)
def test_nothing_is_lost_in_silence(result: Result, kind: str) -> None:
    assert result.kind == kind
    assert bool(result.wrong) == (kind == "wrong")


def test_a_run_can_be_drawn_again_alone() -> None:
    assert draw(7, 3) == draw(7, 3)
    assert len({str(draw(7, number)).partition(":")[2] for number in range(100)}) > 90


def test_the_table_counts_each_run_once_in_each_part() -> None:
    told = dataclasses.replace(WELL, err="lost", status=9, arrived=1)
    lines = [line.split() for line in table([WELL, told, told]).splitlines()]
    assert ["all", "3", "1", "0", "2", "0"] in lines
    assert ["target:", "good", "3", "1", "0", "2", "0"] in lines


@pytest.mark.slow
@pytest.mark.parametrize("sharing", [1, 32])
def test_ends_of_every_kind_are_reported_or_whole_through_the_real_command(sharing: int) -> None:
    """The fifth: what the relay had for a target that read nothing was lost, and nobody was told."""
    runs = [
        RUN,
        dataclasses.replace(RUN, size=3_000_000, end="os._exit(0)", cold=True),
        dataclasses.replace(RUN, size=300_000, end="SIGKILL", target="slow"),
        dataclasses.replace(RUN, end="half-closes", faults="messages"),
        dataclasses.replace(RUN, size=1_500_000, target="resets late", reset_after=1000),
        dataclasses.replace(RUN, end="sys.exit(3)", target="resets", size=3_000_000),
        dataclasses.replace(RUN, target="refused"),
        dataclasses.replace(RUN, target="off the list", size=0),
        dataclasses.replace(RUN, target="wrong key"),
    ]
    with local_cloud("none") as cloud:
        results = [run(cloud, dataclasses.replace(each, sharing=sharing)) for each in runs]
    assert [str(result) for result in results if result.wrong] == []
    assert [result.whole for result in results] == [True] * 4 + [False] * 5
