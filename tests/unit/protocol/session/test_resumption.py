"""One side's view of both connections, rule by rule (docs/protocol.md section 5)."""

from __future__ import annotations

import pytest

from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.role import Role
from emissary_lib.protocol.session.resumption import Resumption
from emissary_lib.protocol.wire.payloads import Resumed

NOW = 1000.0
BOTH = pytest.mark.parametrize("role", [Role.DIALER, Role.RELAY], ids=["dialer", "relay"])


def fresh(role: Role, *, own: int = 1, peer: int = 1) -> Resumption:
    return Resumption(role, own_epoch=own, peer_epoch=peer)


def told(role: Role, own: int, peer: int, *, there: bool = True) -> Resumed:
    """RESUMED as ``side`` reads it: its own epoch, its peer's, and whether the peer is connected."""
    connection = "peer=" if there else None
    if role is Role.DIALER:
        return Resumed(own, peer, "own=", connection)
    return Resumed(peer, own, connection, "own=")


def cut_and_back(view: Resumption, now: float) -> None:
    view.link_lost(now)
    view.begin_attempt()
    view.link_restored(now)


def asks(view: Resumption, until: float) -> list[float]:
    """When RESUME goes out, until then."""
    found = []
    while (at := view.next_timeout()) is not None and at <= until and view.expired_code(at) is None:
        if view.ask_due(at):
            found.append(at - NOW)
    return found


@BOTH
def test_each_attempt_has_an_epoch_of_its_own_whatever_becomes_of_it(role: Role) -> None:
    view = fresh(role)
    view.link_lost(NOW)
    assert [view.begin_attempt() for _ in range(3)] == [2, 3, 4]
    assert view.generation == 5


@BOTH
def test_the_generation_wraps_and_is_still_newer(role: Role) -> None:
    view = fresh(role, own=65_534, peer=1)
    assert view.generation == 65_535
    cut_and_back(view, NOW)
    assert view.generation == 0
    assert view.receive_resumed(told(role, 65_535, 1), NOW)
    cut_and_back(view, NOW)
    assert view.receive_resumed(told(role, 65_536, 1), NOW)
    assert (view.generation, view.may_send) == (1, True)


@BOTH
def test_a_lost_link_is_waited_for_a_grace(role: Role) -> None:
    view = fresh(role)
    view.link_lost(NOW)
    view.link_lost(NOW + 30)  # idempotent
    assert (view.link_deadline, view.next_timeout(), view.may_send) == (NOW + 60, NOW + 60, False)
    assert view.expired_code(NOW + 59.9) is None
    own = Code.DIALER_GONE if role is Role.DIALER else Code.RELAY_GONE
    assert view.expired_code(NOW + 60) is own


@BOTH
def test_resume_goes_out_at_once_and_then_after_1_2_4_5_5_seconds(role: Role) -> None:
    view = fresh(role)
    cut_and_back(view, NOW)
    assert asks(view, NOW + 30) == [0, 1, 3, 7, 12, 17, 22, 27]


@BOTH
def test_a_resume_that_is_never_followed_by_the_peer_ends_after_a_grace(role: Role) -> None:
    view = fresh(role)
    cut_and_back(view, NOW)
    view.receive_resumed(told(role, 2, 1), NOW + 1)  # RESUMED is the bridge's word, not the peer's
    peer = Code.RELAY_GONE if role is Role.DIALER else Code.DIALER_GONE
    assert (view.expired_code(NOW + 59.9), view.expired_code(NOW + 60)) == (None, peer)


@BOTH
def test_nothing_is_sent_before_it_is_known_where_the_peer_is(role: Role) -> None:
    """Symptom: everything in flight went out twice after a reconnect, for the timer and for RESUMED."""
    view = fresh(role)
    cut_and_back(view, NOW)
    before = view.may_send
    assert view.receive_resumed(told(role, 2, 1), NOW)
    assert (before, view.may_send) == (False, True)
    assert not view.receive_resumed(told(role, 2, 1), NOW)  # once


@BOTH
def test_a_frame_of_the_new_generation_ends_the_asking(role: Role) -> None:
    view = fresh(role)
    cut_and_back(view, NOW)
    view.receive_resumed(told(role, 2, 1), NOW)
    view.peer_heard(2, NOW)
    assert view.next_timeout() == NOW  # of the old one: goes on asking
    view.peer_heard(3, NOW)
    assert view.next_timeout() is None


@BOTH
@pytest.mark.parametrize(("own", "peer"), [(1, 2), (2, 1)])
def test_an_outdated_resumed_changes_nothing(role: Role, own: int, peer: int) -> None:
    view = fresh(role, own=2, peer=2)
    assert view.is_outdated(told(role, own, peer))
    assert not view.receive_resumed(told(role, own, peer, there=False), NOW)
    assert (view.generation, view.may_send, view.peer_connection) == (4, True, None)


@BOTH
def test_resumed_of_a_newer_peer_is_a_new_generation(role: Role) -> None:
    view = fresh(role)
    assert view.receive_resumed(told(role, 1, 3), NOW)
    assert (view.generation, view.peer_connection) == (4, "peer=")
    assert not view.receive_resumed(told(role, 1, 2), NOW)
    assert view.generation == 4


@BOTH
def test_a_peer_without_connection_is_waited_for_a_grace(role: Role) -> None:
    view = fresh(role)
    assert not view.receive_resumed(told(role, 1, 1, there=False), NOW)
    assert (view.peer_away, view.may_send, view.next_timeout()) == (True, False, NOW + 60)
    peer = Code.RELAY_GONE if role is Role.DIALER else Code.DIALER_GONE
    assert (view.expired_code(NOW + 59.9), view.expired_code(NOW + 60)) == (None, peer)


@BOTH
def test_disconnected_of_an_older_epoch_is_old_news(role: Role) -> None:
    view = fresh(role, peer=3)
    view.peer_gone(2, NOW)
    assert view.may_send
    view.peer_gone(3, NOW)
    assert not view.may_send


@BOTH
def test_disconnected_carries_sixteen_bits_of_an_epoch(role: Role) -> None:
    """Symptom: a peer with an epoch over 65535 was never gone, because 0 is less than that."""
    view = fresh(role, peer=65_536)
    view.peer_gone(65_535, NOW)
    assert view.may_send
    view.peer_gone(0, NOW)
    assert not view.may_send


@BOTH
def test_disconnected_of_an_epoch_not_heard_of_is_the_newest(role: Role) -> None:
    """Symptom: a late frame of the connection that was gone brought the peer back."""
    view = fresh(role)
    view.peer_gone(2, NOW)
    assert view.generation == 3
    view.peer_heard(3, NOW)
    assert view.peer_away


@BOTH
def test_a_peer_that_was_back_in_between_has_its_grace_again(role: Role) -> None:
    """Symptom: cuts of a few seconds each ended a session, when news of the return had been lost."""
    view = fresh(role)
    view.peer_gone(1, NOW)
    view.peer_gone(1, NOW + 30)  # doubled: nothing new
    assert view.next_timeout() == NOW + 60
    view.peer_gone(2, NOW + 50)
    assert view.next_timeout() == NOW + 110


@BOTH
def test_the_peers_grace_does_not_run_while_nobody_could_tell_of_its_return(role: Role) -> None:
    """Symptom: the peer was back after 2 s; our own cut of 59 s made its absence last for the grace."""
    view = fresh(role)
    view.peer_gone(1, NOW)
    view.link_lost(NOW + 2)
    assert view.next_timeout() == NOW + 62
    view.begin_attempt()
    view.link_restored(NOW + 61)
    assert view.expired_code(NOW + 61) is None
    assert view.receive_resumed(told(role, 2, 2), NOW + 61)
    assert view.may_send


@BOTH
@pytest.mark.parametrize(("lost_at", "left"), [(20, 40), (52.9, 7.1), (58, 7)])
def test_the_peers_grace_stands_still_while_our_own_link_is_down(
    role: Role, lost_at: float, left: float
) -> None:
    """Symptom: a peer that was gone for good was waited for anew after each short cut of our own."""
    view = fresh(role)
    view.peer_gone(1, NOW)
    view.link_lost(NOW + lost_at)
    view.begin_attempt()
    view.link_restored(NOW + lost_at + 30)
    view.receive_resumed(told(role, 2, 1, there=False), NOW + lost_at + 31)
    end = NOW + lost_at + 30 + left
    peer = Code.RELAY_GONE if role is Role.DIALER else Code.DIALER_GONE
    assert (view.expired_code(end - 0.01), view.expired_code(end + 0.01)) == (None, peer)


@BOTH
def test_a_newer_epoch_of_the_peer_starts_its_grace_anew(role: Role) -> None:
    """It was back while our own link was down, and is gone again."""
    view = fresh(role)
    view.peer_gone(1, NOW)
    view.link_lost(NOW + 50)
    view.begin_attempt()
    view.link_restored(NOW + 70)
    view.receive_resumed(told(role, 2, 2, there=False), NOW + 71)
    assert (view.expired_code(NOW + 130.9) is None, view.expired_code(NOW + 131) is None) == (True, False)


@BOTH
def test_resume_is_repeated_while_the_peer_is_away(role: Role) -> None:
    view = fresh(role)
    cut_and_back(view, NOW)
    view.receive_resumed(told(role, 2, 1, there=False), NOW)
    assert asks(view, NOW + 20) == [0, 1, 3, 7, 12, 17]
    view.receive_resumed(told(role, 2, 2), NOW + 20)
    assert asks(view, NOW + 23) == [22]  # and after its return, until it is heard


def test_a_dialer_may_send_as_soon_as_it_hears_the_relay_on_its_new_connection() -> None:
    view = fresh(Role.DIALER)
    cut_and_back(view, NOW)
    assert not view.peer_heard(2, NOW + 1)  # of the old generation: posted to the connection before
    assert not view.may_send
    assert view.peer_heard(3, NOW + 1)
    assert view.may_send


def test_a_relay_waits_for_resumed_because_only_that_says_where_to_post() -> None:
    view = fresh(Role.RELAY)
    cut_and_back(view, NOW)
    view.peer_heard(3, NOW + 1)
    assert not view.may_send
    view.receive_resumed(told(Role.RELAY, 2, 1), NOW + 2)
    assert view.may_send


@BOTH
def test_our_own_reconnects_do_not_prolong_the_peers_silence(role: Role) -> None:
    """Symptom: a relay whose network had gone kept its dialer busy for hours.

    The dialer took its own link for dead after 50 s of silence, came anew, and gave the relay another 60.
    """
    view = fresh(role)
    cut_and_back(view, NOW)
    view.receive_resumed(told(role, 2, 1), NOW)
    view.link_lost(NOW + 50)
    view.begin_attempt()
    view.link_restored(NOW + 70)  # what it took to connect is not the peer's fault
    assert (view.expired_code(NOW + 79.9) is None, view.expired_code(NOW + 80) is None) == (True, False)
    view.link_lost(NOW + 79)
    view.begin_attempt()
    view.link_restored(NOW + 79)
    assert (view.expired_code(NOW + 85) is None, view.expired_code(NOW + 86) is None) == (
        True,
        False,
    )  # a last chance
    view.peer_heard(view.generation, NOW + 85)
    view.receive_resumed(told(role, 4, 1), NOW + 85)
    view.peer_heard(view.generation, NOW + 85)
    cut_and_back(view, NOW + 90)
    assert (view.expired_code(NOW + 149), view.expired_code(NOW + 150) is None) == (
        None,
        False,
    )  # heard: all of it


def test_a_dialer_that_hears_the_relays_new_generation_goes_on_at_once() -> None:
    view = fresh(Role.DIALER)
    view.peer_gone(1, NOW)
    assert view.peer_heard(3, NOW)
    assert (view.may_send, view.generation) == (True, 3)
    assert not view.peer_heard(3, NOW)


def test_a_relay_that_hears_the_dialers_new_generation_asks_where_it_is() -> None:
    view = fresh(Role.RELAY)
    assert not view.peer_heard(3, NOW)
    assert (view.may_send, view.peer_away, view.generation) == (False, False, 3)
    assert view.ask_due(NOW)
    assert not view.peer_heard(3, NOW)  # and more of them do not tell
    assert not view.may_send
    assert view.receive_resumed(told(Role.RELAY, 1, 2), NOW)
    assert (view.may_send, view.peer_connection) == (True, "peer=")


def test_equal_sums_of_different_epochs_do_not_stop_a_relay_from_asking() -> None:
    """Symptom: both had reconnected, 2 + 1 is 1 + 2, and the relay went on posting to a dead connection."""
    view = fresh(Role.RELAY)
    cut_and_back(view, NOW)
    assert view.ask_due(NOW)
    assert not view.peer_heard(3, NOW + 0.5)  # from a dialer of epoch 2 that knows the relay's first
    assert not view.may_send
    assert view.ask_due(NOW + 1)
    assert view.receive_resumed(told(Role.RELAY, 2, 2), NOW + 1)
    assert (view.generation, view.may_send) == (4, True)


def test_frames_of_the_generation_at_which_a_peer_went_do_not_bring_it_back() -> None:
    view = fresh(Role.DIALER)
    view.peer_gone(1, NOW)
    assert not view.peer_heard(2, NOW)
    assert not view.peer_heard(1, NOW)
    assert view.peer_away


def test_a_storm_of_410_asks_no_oftener_than_the_schedule() -> None:
    """Symptom: each 410 of a volley asked anew, because a frame of the dialer's came in between."""
    view = fresh(Role.RELAY)
    asked = 0
    for tick in range(40):
        view.ask(NOW + tick / 20)
        asked += view.ask_due(NOW + tick / 20)
        view.peer_heard(2, NOW + tick / 20)
    assert asked == 2  # at 0 and at 1 s


@BOTH
def test_asking_needs_a_link(role: Role) -> None:
    view = fresh(role)
    view.link_lost(NOW)
    view.ask(NOW)
    assert (view.ask_due(NOW), view.next_timeout()) == (False, NOW + 60)
