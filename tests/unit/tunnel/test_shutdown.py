"""When a tunnel lets go of its socket, and when it returns."""

from __future__ import annotations

import math

from emissary_lib.protocol.constants import LINGER
from emissary_lib.tunnel.shutdown import ShutdownPolicy

NOW = 100.0


def test_nobody_who_pays_nothing_is_hurried() -> None:
    shutdown = ShutdownPolicy()
    shutdown.cut_off(NOW)
    assert not shutdown.resets(NOW + 1e6, taken=True)
    shutdown.finish(NOW)
    assert not shutdown.over(NOW + 1e6, delivered=False)
    assert shutdown.next_timeout(NOW, waits=True) == math.inf
    assert shutdown.over(NOW, delivered=True)


def test_a_session_that_was_cut_off_resets_its_socket_once_it_has_all() -> None:
    shutdown = ShutdownPolicy(NOW + 60)
    assert not shutdown.resets(NOW, taken=True)  # not cut off
    shutdown.cut_off(NOW)
    assert not shutdown.resets(NOW, taken=False)
    assert shutdown.resets(NOW, taken=True)
    assert shutdown.resets(NOW + LINGER, taken=False)
    assert not shutdown.over(NOW + LINGER, delivered=True)  # the bridge has not confirmed


def test_the_wait_after_a_cut_never_goes_beyond_the_limit() -> None:
    shutdown = ShutdownPolicy(NOW + 1)
    shutdown.cut_off(NOW)
    assert shutdown.next_timeout(NOW, waits=False) == NOW + 1
    assert shutdown.resets(NOW + 1, taken=False)
    assert (
        shutdown.next_timeout(NOW + 1, waits=False) == math.inf
    )  # that time is past: nothing more to wait for


def test_a_wait_that_was_long_enough_is_not_made_longer() -> None:
    shutdown = ShutdownPolicy(NOW + 60)
    shutdown.cut_off(NOW, linger=0.0)
    assert shutdown.resets(NOW, taken=False)


def test_what_the_kernel_has_yet_to_pass_on_is_looked_after() -> None:
    shutdown = ShutdownPolicy(NOW + 60)
    assert shutdown.next_timeout(NOW, waits=True) == math.inf
    shutdown.cut_off(NOW)
    assert NOW < shutdown.next_timeout(NOW, waits=True) < NOW + 0.2
    assert shutdown.next_timeout(NOW, waits=False) == NOW + LINGER


def test_after_a_clean_end_a_slow_target_is_waited_for_as_long_as_a_lost_dialer() -> None:
    shutdown = ShutdownPolicy(NOW + 900, linger=320.0)
    shutdown.finish(NOW)
    assert not shutdown.over(NOW + 319, delivered=False)
    assert shutdown.over(NOW + 320, delivered=False)
    assert not shutdown.resets(NOW + 1, taken=True)


def test_a_bridge_that_does_not_confirm_is_left() -> None:
    shutdown = ShutdownPolicy(NOW, NOW + 3)
    shutdown.cut_off(NOW)
    assert shutdown.next_timeout(NOW, waits=False) == NOW + 3
    assert not shutdown.over(NOW + 2.9, delivered=True)
    assert shutdown.over(NOW + 3, delivered=True)
