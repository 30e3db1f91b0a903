"""Which signals of a program's are still to be passed on, and when: without a clock and without processes."""

from __future__ import annotations

import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emissary_lib.cli.signals import GATHER, PASSED_ON, Gathered, Witness, handle_signals, heeded
from emissary_lib.system import JOB_CONTROL

if not JOB_CONTROL:
    pytest.skip("a Windows console has no signals to tell apart", allow_module_level=True)


def test_a_signal_is_due_a_moment_after_it_came_and_is_taken_once() -> None:
    gathered = Gathered()
    assert gathered.seconds(100.0) is None
    gathered.came(signal.SIGTERM, 100.0)
    gathered.came(signal.SIGHUP, 100.0 + GATHER / 2)
    assert gathered.take(100.0 + GATHER / 2) == []
    assert gathered.seconds(100.0) == pytest.approx(GATHER)
    assert gathered.take(100.0 + GATHER) == [signal.SIGTERM]
    assert gathered.take(200.0) == [signal.SIGHUP]
    assert gathered.seconds(200.0) is None


def test_one_that_comes_while_it_is_found_out_whom_the_last_was_for_is_not_lost() -> None:
    """Symptom: on a busy machine a signal for us alone, just behind one for the group, never came through."""
    gathered = Gathered()
    gathered.came(signal.SIGTERM, 0.0)
    assert gathered.take(GATHER) == [signal.SIGTERM]
    gathered.came(signal.SIGTERM, GATHER)
    assert gathered.take(2 * GATHER) == [signal.SIGTERM]


def test_those_of_one_kind_within_a_moment_are_one_and_later_ones_are_not() -> None:
    gathered = Gathered()
    gathered.came(signal.SIGTERM, 0.0)
    gathered.came(signal.SIGTERM, GATHER / 2)
    assert gathered.take(GATHER) == [signal.SIGTERM]
    assert gathered.take(10.0) == []
    gathered.came(signal.SIGTERM, 10.0)
    assert gathered.take(10.0 + GATHER) == [signal.SIGTERM]


def test_a_stop_is_not_passed_on_to_a_program_that_was_told_to_go_on() -> None:
    gathered = Gathered()
    gathered.came(signal.SIGTERM, 0.0)
    gathered.came(signal.SIGTSTP, 0.0)
    gathered.came(signal.SIGCONT, 1.0)
    assert gathered.take(10.0) == [signal.SIGTERM, signal.SIGCONT]


def test_a_continuation_is_not_passed_on_to_a_program_that_was_stopped_again() -> None:
    gathered = Gathered()
    gathered.came(signal.SIGCONT, 0.0)
    gathered.came(signal.SIGTSTP, 0.1)
    assert gathered.take(10.0) == [signal.SIGTSTP]


@given(st.lists(st.tuples(st.sampled_from([signal.SIGTERM, signal.SIGHUP]), st.floats(0, 5)), max_size=20))
def test_each_signal_is_due_within_a_moment_of_the_first_and_only_once(
    given: list[tuple[int, float]],
) -> None:
    gathered, passed = Gathered(), []
    events = sorted(given, key=lambda event: event[1])
    for number, at in [*events, (0, 10.0)]:
        while (seconds := gathered.seconds(0.0)) is not None and seconds <= at:
            passed += [(each, seconds) for each in gathered.take(seconds)]
        if number:
            gathered.came(number, at)
    for number, at in events:
        assert sum(at < when <= at + GATHER for each, when in passed if each == number) == 1


def test_signals_that_are_ignored_are_not_heeded() -> None:
    before = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    try:
        assert heeded([signal.SIGUSR2, signal.SIGWINCH]) == [signal.SIGWINCH]
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_a_wait_ends_when_its_time_is_up_or_somebody_wakes_it() -> None:
    with handle_signals(lambda _number, _frame: None, signal.SIGUSR2) as wait:
        wait(0.0)
        wait.wake()
        wait()
        for _ in range(100_000):
            wait.wake()  # never blocks
    wait.wake()


def test_a_witness_that_is_gone_or_stopped_has_seen_nothing_and_nobody_waits_for_it() -> None:
    with Witness() as witness:
        assert not witness.saw(signal.SIGTERM)
        assert witness._process is not None
        witness._process.kill()
        witness._process.wait()
        assert not witness.saw(signal.SIGTERM)
        assert not witness.saw(signal.SIGTERM)


def test_what_tells_of_a_fault_or_cannot_be_caught_is_not_passed_on() -> None:
    never = {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, signal.SIGSEGV, signal.SIGABRT, signal.SIGPIPE}
    assert not (never | {signal.SIGTTOU}) & set(PASSED_ON)
    assert {signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1} <= set(PASSED_ON)
    assert set(PASSED_ON) <= signal.valid_signals()
