"""Exit statuses: each kind of failure has its own, and --help lists them all."""

from __future__ import annotations

import pytest

from emissary_lib import cli
from emissary_lib.exceptions import (
    ClockSkewError,
    ConfigError,
    DialError,
    DialTimeoutError,
    GatewayRefusedError,
    RelayDeadlineError,
    TargetNotAllowedError,
    TargetRefusedError,
)
from emissary_lib.exit_status import MEANINGS, Exit, exit_status
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.targets import Target

TARGET = Target("db.internal", 5432)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ConfigError("fault"), 3),
        (ClockSkewError(1000.0), 4),
        (GatewayRefusedError("no", http_status=500), 5),
        (TargetNotAllowedError("no", target=TARGET, code=Code.TARGET_NOT_ALLOWED), 6),
        (TargetRefusedError("no", target=TARGET, code=Code.TARGET_REFUSED), 7),
        (DialError("no", target=TARGET, code=Code.TARGET_FAILED), 7),
        (DialTimeoutError("no", target=TARGET, timeout=1.0, step="the relay"), 8),
        (RelayDeadlineError("over", code=Code.RELAY_DEADLINE), 9),
        (ValueError("a bug"), 1),
        (KeyboardInterrupt(), 130),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_the_status_tells_the_kind_of_failure(error: BaseException, status: int) -> None:
    assert exit_status(error) == status


def test_help_lists_every_status_once() -> None:
    assert list(MEANINGS) == list(Exit)
    lines = cli.EXIT_STATUSES.splitlines()[1:]
    assert [int(line.split()[0]) for line in lines] == [status.value for status in Exit]
