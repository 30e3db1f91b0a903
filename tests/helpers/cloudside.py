"""What the tests on the local cloud share: whom it lets in, and what it says of a session afterwards."""

from __future__ import annotations

import json
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

import pytest

from emissary_local import LocalCloud

T = TypeVar("T")

ROOT: Final = pathlib.Path(__file__).resolve().parents[2]
TEMPLATE: Final = ROOT / "template.yaml"

#: Longest time that something takes which is to happen soon, in seconds; the machine may be busy.
SOON: Final = 20.0

#: Longest dial, in seconds: a small machine starts dozens of cold functions for some tests.
DIAL: Final = 60.0

#: Every port of this machine, and a name that never resolves (RFC 2606). Each test has servers of its own,
#: and they are all reachable; whatever else there is, is not.
PARAMETERS: Final = {
    "AllowedTargets": json.dumps(
        [
            {"host": "127.0.0.1", "port": "1024-65535"},
            {"host": "localhost", "port": "1024-65535"},
            {"host": "no-such-name.invalid", "port": 5432},
        ]
    )
}

LINUX_ONLY: Final = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the local cloud runs on Linux"
)


def eventually(ask: Callable[[], T | None], what: str) -> T:
    """Ask until there is an answer: for what other processes do, which tell nobody when they have done it."""
    deadline = time.monotonic() + SOON
    while (answer := ask()) is None:
        assert time.monotonic() < deadline, f"{what}: not within {SOON:g} s"
        time.sleep(0.01)
    return answer


def log_lines(cloud: LocalCloud, session: str) -> list[dict[str, Any]]:
    """The functions' log lines of one session, in no order."""
    lines = [line for line in cloud.logs().splitlines() if line.startswith("{")]
    return [entry for entry in map(json.loads, lines) if entry.get("session") == session]


def audit_records(cloud: LocalCloud, session: str) -> list[dict[str, Any]]:
    """The session's audit records so far: the lines that name its key."""
    lines = log_lines(cloud, session)
    return [line for line in lines if line["message"] == "session ended" and "key_id" in line]


def audit_record(cloud: LocalCloud, session: str) -> dict[str, Any]:
    """Wait for the session's audit record."""

    def ask() -> dict[str, Any] | None:
        records = audit_records(cloud, session)
        return records[0] if records else None

    return eventually(ask, "the audit record")


def relay_returned(cloud: LocalCloud, session: str) -> str:
    """Wait until the session's relay has returned; the code that it logged."""

    def ask() -> str | None:
        for line in log_lines(cloud, session):
            if line["message"] == "session ended" and "RelayFunction" in line["function"]:
                return str(line["code"])
        return None

    return eventually(ask, "the relay's return")
