"""Exit statuses: each kind of failure has its own, and --help lists them all."""

from __future__ import annotations

import pytest

from emissary_lib import exceptions
from emissary_lib.cli.command import format_exits
from emissary_lib.exceptions import (
    AnswerLostError,
    ClockSkewError,
    CommandError,
    ConfigError,
    DialError,
    DialTimeoutError,
    EmissaryError,
    GatewayRefusedError,
    ListenError,
    LocalResourceError,
    OperationError,
    OutputError,
    PackageError,
    ReaderGoneError,
    RelayDeadlineError,
    TargetNotAllowedError,
    dial_error,
)
from emissary_lib.exit_status import DIALLING, MEANINGS, Exit, exit_status, is_signalled, statuses
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.targets.allow_list import Target

TARGET = Target("db.internal", 5432)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ConfigError("fault"), 3),
        (ClockSkewError(1000.0), 4),
        (GatewayRefusedError("no", http_status=500), 5),
        (TargetNotAllowedError("no", target=TARGET, code=Code.TARGET_NOT_ALLOWED), 6),
        (dial_error(TARGET, Code.AUTHENTICATION_FAILED), 4),
        (AnswerLostError("cut"), 5),
        (dial_error(TARGET, Code.TARGET_NOT_ALLOWED), 6),
        (dial_error(TARGET, Code.RELAY_GONE), 7),
        (dial_error(TARGET, Code.TARGET_TIMED_OUT), 8),
        (dial_error(TARGET, Code.NAME_NOT_FOUND), 10),
        (dial_error(TARGET, Code.TARGET_REFUSED), 11),
        (dial_error(TARGET, Code.SESSION_LIMIT), 15),
        (dial_error(TARGET, Code.TARGET_UNREACHABLE), 12),
        (ListenError("in use"), 13),
        (CommandError("cannot start it"), 127),
        (OperationError("AWS refused"), 14),
        (LocalResourceError("no descriptor"), 16),
        (OutputError("no space"), 17),
        (DialError("no", target=TARGET, code=Code.TARGET_FAILED), 7),
        (DialTimeoutError("no", target=TARGET, timeout=1.0, step="the relay"), 8),
        (RelayDeadlineError("over", code=Code.RELAY_DEADLINE), 9),
        (ReaderGoneError("broken pipe"), 141),
        (PackageError("websocket-client is not installed"), 2),
        (ImportError("no such name"), 2),
        (EmissaryError("of its own kind"), 1),
        (FileNotFoundError("no such file"), 1),
        (ValueError("a bug"), 70),
        (KeyboardInterrupt(), 130),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_the_status_tells_the_kind_of_failure(error: BaseException, status: int) -> None:
    assert exit_status(error) == status


def test_help_lists_every_status_once() -> None:
    assert list(MEANINGS) == list(Exit)
    lines = format_exits(list(Exit)).splitlines()[1:]
    assert [int(line.split()[0]) for line in lines] == [status.value for status in Exit]


def test_a_dial_has_the_statuses_of_its_settings_its_key_the_gateway_and_the_target() -> None:
    kinds = (exceptions.ConfigError, exceptions.AuthenticationError, exceptions.TransportError, DialError)
    assert set(DIALLING) == {status for kind, status in statuses() if issubclass(kind, kinds)}
    codes = [code for code in Code if code is not Code.OK]
    assert {exit_status(dial_error(TARGET, code)) for code in codes} <= DIALLING


def test_no_error_of_a_dial_shares_the_status_of_a_bug() -> None:
    kinds = {name: getattr(exceptions, name) for name in exceptions.__all__}
    told = [kind for kind, status in statuses() if status is not Exit.FAILED]
    unnamed = {name for name, kind in kinds.items() if not any(issubclass(kind, each) for each in told)}
    assert unnamed == {"ProtocolError", "LocalProtocolError", "EmissaryError", "ClosedError"}


@pytest.mark.parametrize("code", [code for code in Code if code])
def test_every_code_of_a_dial_is_that_of_its_exception(code: Code) -> None:
    """Symptom: a bridge that refused the dialer's protocol ended the command like a bug of its own."""
    error = exceptions.dial_error(Target("db.internal", 5432), code)
    assert error.code is code  # type: ignore[attr-defined]
    assert exit_status(error) is not Exit.FAILED


def test_no_error_is_hidden_by_one_before_it() -> None:
    for index, (kind, _status) in enumerate(statuses()):
        assert not any(issubclass(kind, before) for before, _ in statuses()[:index]), kind


def test_a_status_of_a_signal_s_is_128_and_its_number() -> None:
    assert [status for status in range(256) if is_signalled(status)] == list(range(129, 193))
