"""The relay's watch (docs/protocol.md section 5.5)."""

from __future__ import annotations

from emissary_lib.protocol.session.keepalive import KeepaliveAction, ProbeTimes, RelayKeepalive

TIMES = ProbeTimes()


def beats(
    watch: RelayKeepalive, unacked: float | None, until: float, *, answer: float | None
) -> list[tuple[float, KeepaliveAction]]:
    """What is due until then, each PROBE being answered after so long."""
    found: list[tuple[float, KeepaliveAction]] = []
    while (at := watch.next_timeout(unacked)) <= until:
        found.append((at, watch.handle_timeout(at, unacked)))
        if found[-1][1] is not KeepaliveAction.PROBE:
            break
        if answer is not None:
            watch.on_bridge_answer(at + answer)
    return found


def test_twenty_seconds_without_a_word_on_unacknowledged_data_are_asked_about() -> None:
    watch = RelayKeepalive(TIMES, 0.0)
    assert watch.next_timeout(5.0) == 25.0
    watch.on_received(10.0)
    assert watch.next_timeout(5.0) == 30.0
    assert watch.handle_timeout(29.9, 5.0) is KeepaliveAction.NOTHING
    assert watch.handle_timeout(30.0, 5.0) is KeepaliveAction.PROBE


def test_silence_with_nothing_outstanding_is_asked_about_within_the_grace() -> None:
    found = beats(RelayKeepalive(TIMES, 0.0), None, 200, answer=0.5)
    assert found == [
        (60.0, KeepaliveAction.PROBE),
        (120.5, KeepaliveAction.PROBE),
        (181.0, KeepaliveAction.PROBE),
    ]


def test_a_bridge_that_does_not_answer_in_ten_seconds_is_a_dead_link() -> None:
    assert beats(RelayKeepalive(TIMES, 0.0), 0.0, 100, answer=None) == [
        (20.0, KeepaliveAction.PROBE),
        (30.0, KeepaliveAction.LINK_DEAD),
    ]


def test_answers_without_a_dialer_are_asked_for_again_every_twenty_seconds_until_it_counts_as_gone() -> None:
    found = beats(RelayKeepalive(TIMES, 0.0), 0.0, 1000, answer=1.0)
    assert [at for at, _beat in found] == [20.0 + 21.0 * n for n in range(15)] + [320.0]
    assert found[-1][1] is KeepaliveAction.PEER_DEAD


def test_an_orphan_without_data_ends_after_interval_and_deadline_and_grace() -> None:
    found = beats(RelayKeepalive(TIMES, 0.0), None, 1000, answer=0.5)
    assert (found[0], found[-1]) == ((60.0, KeepaliveAction.PROBE), (320.0, KeepaliveAction.PEER_DEAD))


def test_the_dialers_word_answers_everything() -> None:
    watch = RelayKeepalive(TIMES, 0.0)
    watch.handle_timeout(20.0, 0.0)
    watch.on_received(29.0)
    assert watch.handle_timeout(30.0, 0.0) is KeepaliveAction.NOTHING
    assert watch.next_timeout(None) == 89.0


def test_a_new_connection_of_ours_says_nothing_of_the_dialer() -> None:
    """Symptom: a relay whose own link flapped waited for a dialer that was gone for good, without end."""
    watch = RelayKeepalive(TIMES, 0.0)
    watch.handle_timeout(60.0, None)
    watch.restart(69.0)
    assert watch.handle_timeout(70.0, None) is KeepaliveAction.NOTHING
    for at in range(280, 320, 10):
        watch.restart(float(at))
    assert watch.handle_timeout(320.0, None) is KeepaliveAction.PEER_DEAD
