"""What is known of long messages, by what becomes of them (docs/protocol.md section 4.8)."""

from __future__ import annotations

import pytest

from emissary_lib.protocol.stream.message_size import PROOFS, MessageSize, SizeState


def doubtful() -> MessageSize:
    size = MessageSize()
    size.on_long_lost(sends=2, sent_at=1.0, now=2.0)
    assert size.state is SizeState.DOUBTFUL
    return size


def proving() -> MessageSize:
    size = doubtful()
    size.on_ack(long=False, sent_at=2.0, now=3.0)
    assert size.state is SizeState.PROVING
    return size


def test_a_long_message_that_is_lost_once_says_nothing_where_one_has_passed() -> None:
    size = MessageSize()
    size.on_ack(long=True, sent_at=0.0, now=0.5)
    for now in range(1, 5):
        size.on_long_lost(sends=1, sent_at=now, now=now + 1)
    assert size.long_allowed(30)


def test_where_none_has_passed_the_first_loss_is_enough_to_try_short_ones() -> None:
    size = MessageSize()
    size.on_long_lost(sends=1, sent_at=1.0, now=4.0)
    assert size.state is SizeState.DOUBTFUL


def test_one_that_is_lost_again_says_nothing_where_another_passed_meanwhile() -> None:
    size = MessageSize()
    size.on_ack(long=True, sent_at=0.0, now=1.5)
    size.on_long_lost(sends=2, sent_at=1.0, now=2.0)
    assert size.long_allowed(30)


def test_without_any_that_passed_the_next_are_short_until_one_of_these_arrives() -> None:
    size = doubtful()
    assert not size.long_allowed(0)
    size.on_ack(long=False, sent_at=1.9, now=2.1)  # it was sent before
    assert size.state is SizeState.DOUBTFUL


def test_then_one_long_message_at_a_time_is_the_proof() -> None:
    size = proving()
    assert (size.long_allowed(0), size.long_allowed(1)) == (True, False)


@pytest.mark.parametrize("make", [doubtful, proving])
def test_a_long_message_that_arrives_after_all_ends_the_doubt(make: object) -> None:
    size = doubtful() if make is doubtful else proving()
    size.on_ack(long=True, sent_at=0.5, now=4.0)
    assert size.state is SizeState.LONG


def test_a_proof_that_is_lost_again_decides() -> None:
    size = proving()
    for number in range(PROOFS):
        assert not size.short
        size.on_long_lost(sends=3 + number, sent_at=4.0 + number, now=5.0 + number)
    assert size.short
    assert not size.long_allowed(0)


def test_one_that_was_under_way_before_the_proof_is_none() -> None:
    size = proving()
    for _ in range(PROOFS):
        size.on_long_lost(sends=2, sent_at=1.0, now=5.0)
    assert size.state is SizeState.PROVING


@pytest.mark.parametrize("make", [MessageSize, doubtful, proving])
def test_who_is_told_need_not_find_out(make: object) -> None:
    size = {MessageSize: MessageSize, doubtful: doubtful, proving: proving}[make]()  # type: ignore[index]
    size.on_told(9.0)
    assert size.short


def test_short_is_for_good() -> None:
    size = MessageSize(short=True)
    size.on_ack(long=True, sent_at=1.0, now=2.0)
    size.on_long_lost(sends=2, sent_at=3.0, now=4.0)
    assert size.short
