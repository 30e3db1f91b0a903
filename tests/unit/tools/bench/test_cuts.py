"""The pauses, over plain connections through something that can be made to stand still."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest

from tools.bench import cuts
from tools.bench.measure import Dial
from tools.bench.target import target_process

PAUSES = [cuts.round_trip_pause, cuts.from_target_pause, cuts.to_target_pause]


class Ticking:
    """A clock that goes on by a millisecond whenever it is read."""

    now = 0.0

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


class Slow(socket.socket):
    """A connection whose next use after ``stop`` takes so long on ``clock``."""

    stop = 0.0
    clock = Ticking()

    def _wait(self) -> None:
        seconds, self.stop = self.stop, 0.0
        self.clock.now += seconds

    def sendall(self, *args: object) -> None:
        self._wait()
        super().sendall(*args)  # type: ignore[arg-type]

    def recv_into(self, *args: object) -> int:
        self._wait()
        return super().recv_into(*args)  # type: ignore[arg-type]


@pytest.fixture
def dial() -> Iterator[tuple[Dial, list[Slow]]]:
    dialled: list[Slow] = []
    with target_process() as target:

        def connected() -> socket.socket:
            dialled.append(Slow())
            dialled[-1].connect(target)
            return dialled[-1]

        yield connected, dialled


@pytest.mark.parametrize("pause", PAUSES)
def test_each_way_of_cutting_is_met_once_after_one_that_does_not_count(
    dial: tuple[Dial, list[Slow]], pause: Callable[[Dial, cuts.Cut, float, Ticking], float]
) -> None:
    met: list[tuple[str, str]] = []

    def cut(side: str, how: str) -> None:
        met.append((side, how))
        dial[1][0].stop = 0.3 if len(met) == 1 else 0.02

    assert pause(dial[0], cut, 0.05, Slow.clock) == pytest.approx(21)
    assert sorted(met[1:]) == sorted(cuts.WAYS)
    assert met[0] in cuts.WAYS
