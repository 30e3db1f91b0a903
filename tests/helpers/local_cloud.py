"""What the tests on the local cloud share: whom it lets in, and what it says of a session afterwards."""

from __future__ import annotations

import contextlib
import json
import pathlib
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

import pytest

from emissary_lib import Dialer, Key
from emissary_local import LocalCloud
from tests.helpers.patience import HANG, wait_until

T = TypeVar("T")

ROOT: Final = pathlib.Path(__file__).resolve().parents[2]
TEMPLATE: Final = ROOT / "template.yaml"

#: Longest dial, in seconds.
DIAL: Final = HANG

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
    answers: list[T] = []

    def answered() -> bool:
        answers.extend(answer for answer in [ask()] if answer is not None)
        return bool(answers)

    wait_until(answered, what)
    return answers[0]


@contextlib.contextmanager
def all_tunnels_over() -> Iterator[None]:
    """At the end of the block, wait until the tunnels that were opened in it are over.

    ``Dialer.close`` waits until nothing has moved for some seconds. A tunnel that has not quite ended then,
    and whose cloud goes away, asks for the gateway until its grace is over.
    """
    before = set(threading.enumerate())

    def tunnels() -> list[threading.Thread]:
        new = set(threading.enumerate()) - before
        return [thread for thread in new if thread.name.startswith("emissary-")]

    yield
    wait_until(lambda: not tunnels(), "the end of every tunnel")


@contextlib.contextmanager
def dialer_of(cloud: LocalCloud, key: Key | None = None, **options: Any) -> Iterator[Dialer]:
    """A dialer of that cloud, all of whose tunnels are over when the block is.

    Args:
        cloud: Whose gateway.
        key: The key to sign with; the cloud's own if not given.
        options: Of :class:`Dialer`.
    """
    with all_tunnels_over(), Dialer(cloud.url, key or cloud.key, **options) as dialer:
        yield dialer


def json_lines(cloud: LocalCloud, *function: str) -> list[dict[str, Any]]:
    """The log lines of all functions, or of one, that are JSON; one that is half written is not there yet."""
    lines = []
    for line in cloud.logs(*function).splitlines():
        with contextlib.suppress(ValueError):
            if line.startswith("{"):
                lines.append(json.loads(line))
    return lines


def log_lines(cloud: LocalCloud, session: str) -> list[dict[str, Any]]:
    """The functions' log lines of one session, in no order."""
    return [line for line in json_lines(cloud) if line.get("session") == session]


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


def connection_records(cloud: LocalCloud, session: str) -> list[dict[str, Any]]:
    """What the relay of a shared session has logged of its connections that are over."""
    return [line for line in log_lines(cloud, session) if line["message"] == "connection ended"]


def only_connection_ended(cloud: LocalCloud, session: str) -> str:
    """Wait until the session's only connection is over, whether or not it could be shared; the logged code.

    Of a session that is not shared, that is what its relay returns with.
    """

    def ask() -> str | None:
        lines = log_lines(cloud, session)  # once: the relay writes a shared session's own end last
        shared = [line for line in lines if line["message"] == "connection ended"]
        returned = [line for line in lines if "RelayFunction" in line["function"]]
        ends = shared or [line for line in returned if line["message"] == "session ended"]
        return str(ends[0]["code"]) if ends else None

    return eventually(ask, "the connection's end")
