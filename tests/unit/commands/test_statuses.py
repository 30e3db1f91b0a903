"""The exit statuses: one for each kind of end, all of them in --help."""

from __future__ import annotations

import pytest

from emissary_lib import exceptions
from emissary_lib.commands import statuses
from emissary_lib.commands.errors import CommandError, ListenError
from emissary_lib.exceptions import (
    AnswerLostError,
    ClockSkewError,
    ConfigError,
    DialTimeoutError,
    EmissaryError,
    GatewayRefusedError,
    GatewayUnreachableError,
    RemoteProtocolError,
    dial_error,
    reset_error,
)
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.targets import Target

TARGET = Target("db.internal", 5432)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ConfigError("EMISSARY_URL is not set"), 3),
        (dial_error(TARGET, Code.AUTHENTICATION_FAILED), 10),
        (ClockSkewError(1200.0), 10),
        (GatewayUnreachableError("no answer"), 11),
        (AnswerLostError("cut"), 11),
        (GatewayRefusedError("busy", http_status=429), 11),
        (RemoteProtocolError("garbage"), 12),
        (ListenError("in use"), 13),
        (dial_error(TARGET, Code.TARGET_NOT_ALLOWED), 20),
        (dial_error(TARGET, Code.NAME_NOT_FOUND), 21),
        (dial_error(TARGET, Code.TARGET_REFUSED), 22),
        (dial_error(TARGET, Code.TARGET_UNREACHABLE), 23),
        (dial_error(TARGET, Code.TARGET_TIMED_OUT), 24),
        (DialTimeoutError("late", target=TARGET, timeout=1.0, step="the gateway"), 24),
        (dial_error(TARGET, Code.TARGET_FAILED), 25),
        (dial_error(TARGET, Code.RELAY_GONE), 25),
        (reset_error(TARGET, Code.RELAY_DEADLINE, ""), 30),
        (reset_error(TARGET, Code.TARGET_RESET, ""), 30),
        (CommandError("cannot start it"), 127),
        (EmissaryError("anything else"), 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_each_kind_of_error_has_its_status(error: EmissaryError, status: int) -> None:
    assert statuses.status_of(error) == status


def test_every_status_is_explained_and_none_means_two_things() -> None:
    assert {status for _kind, status in statuses.OF_ERROR} <= set(statuses.MEANINGS)
    assert len(set(statuses.MEANINGS.values())) == len(statuses.MEANINGS)
    for status, meaning in statuses.MEANINGS.items():
        assert f"\n  {status:<4} {meaning}\n" in statuses.table()


def test_no_error_is_hidden_by_one_before_it() -> None:
    for index, (kind, _status) in enumerate(statuses.OF_ERROR):
        assert not any(issubclass(kind, before) for before, _ in statuses.OF_ERROR[:index]), kind


def test_every_error_a_dial_can_end_with_has_a_status_that_tells_it_from_a_bug() -> None:
    kinds = [getattr(exceptions, name) for name in exceptions.__all__]
    told = [kind for kind, _status in statuses.OF_ERROR]
    unnamed = {kind.__name__ for kind in kinds if not any(issubclass(kind, each) for each in told)}
    assert unnamed == {"EmissaryError", "ClosedError"}
