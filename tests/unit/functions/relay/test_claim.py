"""Dialling back: what is tried again, for how long, and with which epoch."""

from __future__ import annotations

import pytest

from emissary_lib.exceptions import EmissaryError, GatewayRefusedError, GatewayUnreachableError
from emissary_lib.transport.deadline import Deadline
from functions.relay.claim import claim
from tests.helpers.clock import Clock


class Gateway:
    """Gives the answers it was made with, one for each attempt; the last one for ever."""

    def __init__(self, *answers: EmissaryError | str) -> None:
        self.clock = Clock()
        self.epochs: list[int] = []
        self._answers = list(answers)

    def dial_back(self, epoch: int) -> str:
        self.epochs.append(epoch)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, EmissaryError):
            raise answer
        return answer

    def deadline(self, seconds: float) -> Deadline:
        return Deadline(seconds, lambda: self.clock.now)

    def pause(self, seconds: float) -> None:
        self.clock.advance(seconds)


def refused(status: int) -> GatewayRefusedError:
    return GatewayRefusedError(f"HTTP status {status}", http_status=status)


def test_open_door_takes_one_attempt() -> None:
    gateway = Gateway("link")
    assert claim(gateway.dial_back, gateway.deadline(10), sleep=gateway.pause) == ("link", 1)


def test_conflict_means_not_ours() -> None:
    gateway = Gateway(refused(409))
    assert claim(gateway.dial_back, gateway.deadline(10), sleep=gateway.pause) is None
    assert gateway.epochs == [1]


@pytest.mark.parametrize("error", [refused(429), refused(500), refused(503), GatewayUnreachableError("?")])
def test_passing_trouble_is_tried_again_with_a_rising_epoch(error: EmissaryError) -> None:
    gateway = Gateway(error, error, "link")
    assert claim(gateway.dial_back, gateway.deadline(10), sleep=gateway.pause) == ("link", 3)
    assert gateway.epochs == [1, 2, 3]


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_refusal_for_good_is_raised_at_once(status: int) -> None:
    gateway = Gateway(refused(status))
    with pytest.raises(GatewayRefusedError) as caught:
        claim(gateway.dial_back, gateway.deadline(10), sleep=gateway.pause)
    assert caught.value.http_status == status
    assert gateway.epochs == [1]


@pytest.mark.parametrize("error", [refused(429), GatewayUnreachableError("no route")])
def test_lasting_trouble_is_raised_within_the_deadline(error: EmissaryError) -> None:
    gateway = Gateway(error)
    start = gateway.clock.now
    with pytest.raises(type(error)):
        claim(gateway.dial_back, gateway.deadline(10), sleep=gateway.pause)
    assert 7.0 <= gateway.clock.now - start < 10.0  # the longest wait is one of 3 s
    assert len(gateway.epochs) > 5
