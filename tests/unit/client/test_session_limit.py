"""A dial beyond a limit of sessions."""

from __future__ import annotations

import pytest

from emissary_lib.client import handshake as opening
from emissary_lib.client.dialer import Dialer
from emissary_lib.exceptions import DialTimeoutError, SessionLimitError, dial_error
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.targets.allow_list import Target
from emissary_lib.protocol.wire.frames import Frame, FrameType, encode
from emissary_lib.protocol.wire.payloads import Ended
from emissary_lib.transport.deadline import Deadline
from tests.helpers.bridge import KEY, TARGET, Behaviour, Bridge, echo
from tests.helpers.kinds import OWN
from tests.helpers.patience import HANG

SAID = Ended(Code.SESSION_LIMIT, 0, 0, "limit of 5 sessions for key 7 reached")
FULL = encode(Frame(FrameType.ENDED, generation=1, payload=SAID.encode()))


def test_a_place_that_is_just_being_freed_is_waited_for() -> None:
    """Whoever dials, closes and dials again at the limit meets his own session, which has not quite ended."""
    with Bridge(Behaviour(script=echo, stumbles=[FULL, FULL])) as bridge:
        with OWN.dialer(bridge.url, KEY).dial(TARGET, HANG) as sock:
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
        assert len(bridge.server.requests) == 3


def test_a_limit_that_stays_reached_is_told_in_the_bridge_s_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "LIMIT_WAIT", 0.0)
    with Bridge(Behaviour(answer=FULL)) as bridge, pytest.raises(SessionLimitError) as caught:
        OWN.dialer(bridge.url, KEY).dial(TARGET, HANG)
    assert "cannot reach db.internal:5432: limit of 5 sessions for key 7 reached; close some" in str(
        caught.value
    )
    assert (caught.value.code, len(bridge.server.requests)) == (Code.SESSION_LIMIT, 1)


def test_who_meets_a_limit_hears_that_connections_can_share_a_place() -> None:
    error = str(dial_error(Target("db", 1), Code.SESSION_LIMIT))
    assert "let more connections share a relay (EMISSARY_CONNECTIONS_PER_RELAY), or raise the limit" in error


def test_the_last_attempt_is_made_when_the_patience_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "LIMIT_WAIT", 0.2)
    monkeypatch.setattr(opening, "back_off", lambda: iter([10 * HANG]))
    with Bridge(Behaviour(answer=FULL)) as bridge, pytest.raises(SessionLimitError):
        OWN.dialer(bridge.url, KEY).dial(TARGET, HANG)
    assert len(bridge.server.requests) == 2


def test_no_attempt_is_made_for_which_the_dial_has_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "LIMIT_WAIT", 100 * HANG)
    monkeypatch.setattr(opening, "back_off", lambda: iter([0.0, 10 * HANG]))
    with Bridge(Behaviour(answer=FULL)) as bridge, pytest.raises(SessionLimitError):
        OWN.dialer(bridge.url, KEY).dial(TARGET, HANG)
    assert len(bridge.server.requests) == 2


@pytest.mark.parametrize(
    ("took", "expected"), [(opening.LIMIT_WAIT / 2, SessionLimitError), (HANG, DialTimeoutError)]
)
def test_an_attempt_that_runs_out_of_time_hides_the_limit_only_if_it_took_long(
    monkeypatch: pytest.MonkeyPatch, took: float, expected: type[Exception]
) -> None:
    """One that took long was not waiting for a place."""
    now = 0.0
    outcomes: list[Exception] = [dial_error(Target("db", 1), Code.SESSION_LIMIT), TimeoutError()]

    def attempt(*_args: object) -> opening.OpenedSession:
        nonlocal now
        now += took
        raise outcomes.pop(0)

    monkeypatch.setattr(opening, "_open_once", attempt)
    monkeypatch.setattr(opening, "back_off", lambda: iter([0.0]))
    monkeypatch.setattr(opening, "Deadline", lambda timeout: Deadline(timeout, lambda: now))
    with pytest.raises(expected):
        Dialer("ws://127.0.0.1:1/x", KEY).dial(TARGET, HANG)
    assert outcomes == []
