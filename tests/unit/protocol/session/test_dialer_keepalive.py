"""The dialer's watch over its peer (docs/protocol.md section 4.7)."""

from __future__ import annotations

from emissary_lib.protocol.session.keepalive import DialerKeepalive, KeepaliveAction, KeepaliveTimes

TIMES = KeepaliveTimes()


def test_silence_is_asked_about_after_four_minutes() -> None:
    watch = DialerKeepalive(TIMES, 0.0)
    assert watch.next_timeout(None) == 240.0
    assert watch.handle_timeout(239.9, None) is KeepaliveAction.NOTHING
    assert watch.handle_timeout(240.0, None) is KeepaliveAction.PING


def test_a_question_is_repeated_and_given_up_on_after_twenty_seconds() -> None:
    """Symptom: one lost PING or PONG killed an idle session, on a carrier that may lose any message."""
    watch = DialerKeepalive(TIMES, 0.0)
    beats = []
    now = 240.0
    while True:
        beats.append((now, watch.handle_timeout(now, None)))
        if beats[-1][1] is KeepaliveAction.LINK_DEAD:
            break
        following = watch.next_timeout(None)
        assert following is not None
        now = following
    assert beats == [
        (240.0, KeepaliveAction.PING),
        (245.0, KeepaliveAction.PING),
        (250.0, KeepaliveAction.PING),
        (255.0, KeepaliveAction.PING),
        (260.0, KeepaliveAction.LINK_DEAD),
    ]


def test_anything_heard_answers_the_question() -> None:
    watch = DialerKeepalive(TIMES, 0.0)
    watch.handle_timeout(240.0, None)
    watch.on_received(259.0)
    assert watch.handle_timeout(260.0, None) is KeepaliveAction.NOTHING
    assert watch.next_timeout(None) == 480.0  # our own silence since the PING


def test_thirty_seconds_without_a_word_on_unacknowledged_data_is_asked_about() -> None:
    watch = DialerKeepalive(TIMES, 0.0)
    assert watch.next_timeout(10.0) == 40.0
    watch.on_received(20.0)
    assert watch.next_timeout(10.0) == 50.0
    assert watch.handle_timeout(50.0, 10.0) is KeepaliveAction.PING


def test_a_query_after_a_long_rest_is_not_asked_about_at_once() -> None:
    """Symptom: the silence before a query counted as silence after it, so each query cost a PING."""
    watch = DialerKeepalive(TIMES, 0.0)
    assert watch.next_timeout(200.0) == 230.0
    assert watch.handle_timeout(200.0, 200.0) is KeepaliveAction.NOTHING


def test_data_sent_just_before_the_four_minutes_are_over_does_not_put_the_question_off() -> None:
    watch = DialerKeepalive(TIMES, 0.0)
    assert watch.next_timeout(239.0) == 240.0


def test_our_own_silence_is_broken_though_the_peer_is_heard() -> None:
    """Symptom: a relay told of its window, which needs no answer, and so put off the dialer's PING.

    Then it took the dialer, silent for 320 s, to be gone; its target was only slow.
    """
    watch = DialerKeepalive(KeepaliveTimes(), 0.0)
    watch.on_received(90.0)
    assert watch.next_timeout(None) == 240.0
    assert watch.handle_timeout(240.0, None) is KeepaliveAction.PING
    watch.on_received(240.1)
    watch.on_sent(300.0)
    watch.on_received(310.0)
    assert watch.next_timeout(None) == 540.0


def test_a_standstill_is_asked_about_at_once_however_little_of_it_the_timers_saw() -> None:
    watch = DialerKeepalive(TIMES, 0.0)
    watch.on_received(10.0)
    watch.on_suspend()
    assert watch.handle_timeout(10.1, None) is KeepaliveAction.PING
    assert watch.handle_timeout(30.1, None) is KeepaliveAction.LINK_DEAD


def test_a_question_from_before_a_standstill_is_asked_anew_with_all_its_time() -> None:
    """Symptom: an answer that nobody could read while the host slept would have counted as none."""
    watch = DialerKeepalive(TIMES, 0.0)
    assert watch.handle_timeout(240.0, None) is KeepaliveAction.PING
    watch.on_suspend()
    assert watch.handle_timeout(2040.0, None) is KeepaliveAction.PING
    assert watch.handle_timeout(2045.0, None) is KeepaliveAction.PING
    assert watch.handle_timeout(2060.0, None) is KeepaliveAction.LINK_DEAD


def test_a_connection_that_was_replaced_after_a_standstill_needs_no_question() -> None:
    watch = DialerKeepalive(TIMES, 0.0)
    watch.on_suspend()
    assert watch.handle_timeout(1.0, None, asking=False) is KeepaliveAction.NOTHING
    watch.restart(2.0)
    assert watch.next_timeout(None) == 242.0
