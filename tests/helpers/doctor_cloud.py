"""The doctor run against the local cloud, and what it reported."""

from __future__ import annotations

import io
import json
import socket
import ssl
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from emissary_lib import Key
from emissary_lib.cli.doctor import run_doctor
from emissary_lib.client.health import Health, check_health
from emissary_lib.client.settings import SettingsReader
from emissary_lib.doctor.configuration import Settings
from emissary_lib.doctor.long_messages import Passage, send_longest
from emissary_lib.doctor.network import TcpConnection
from emissary_lib.doctor.ports import Clock, HttpAnswer, Tls
from emissary_lib.doctor.probe import SessionProbe
from emissary_lib.doctor.run import Dependencies
from emissary_lib.protocol.auth.keys import format_keys
from emissary_lib.protocol.opening.banner import Banner
from emissary_lib.protocol.targets.allow_list import Target
from emissary_lib.transport.deadline import Deadline
from emissary_local import Faults, LocalCloud
from tests.helpers.patience import HANG

T = TypeVar("T")


class UnevenProbe(SessionProbe):
    """Has all the time that it takes for each step, but for those that a test lets run out.

    Args:
        settings, clock: As the doctor gives them.
        short: Seconds for some steps, by their names.
        before_request: Called before the target is asked; from then on a PING is not waited for.
    """

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        short: Mapping[str, float],
        before_request: Callable[[], object] | None,
    ) -> None:
        super().__init__(settings.known_endpoint, settings.known_key, clock.monotonic)
        self._short = dict(short)
        self._before_request = before_request

    def _time_for(self, step: str) -> float:
        return self._short.get(step, HANG)

    def connect_once(self, timeout: float) -> None:
        super().connect_once(self._time_for("connect_once"))

    def connect_with_retry(self, timeout: float) -> None:
        super().connect_with_retry(self._time_for("connect_with_retry"))

    def prove(self, timeout: float) -> Banner:
        return super().prove(self._time_for("prove"))

    def dial(self, target: Target, timeout: float) -> None:
        super().dial(target, self._time_for("dial"))

    def ping(self, timeout: float) -> None:
        super().ping(self._time_for("ping"))

    def request(self, data: bytes, read: Callable[[bytes, bool], T | None], timeout: float) -> T:
        if self._before_request is not None:
            self._before_request()
            self._short["ping"] = 1.0
        return super().request(data, read, self._time_for("request"))


class UnevenConnection(TcpConnection):
    """The same for the connection that is made before any session."""

    def __init__(self, sock: socket.socket, short: Mapping[str, float]) -> None:
        super().__init__(sock)
        self._short = short

    def secure(self, host: str, context: ssl.SSLContext | None, timeout: float) -> Tls:
        return super().secure(host, context, self._short.get("secure", HANG))

    def ask(self, host: str, path: str, timeout: float) -> HttpAnswer:
        return super().ask(host, path, HANG)


class Diagnosis:
    """The doctor's report, as its JSON has it."""

    def __init__(self, status: int, text: str) -> None:
        self.status = status
        self.report: dict[str, Any] = json.loads(text)
        self.checks: dict[str, dict[str, Any]] = {each["name"]: each for each in self.report["checks"]}

    def outcome(self) -> tuple[str | None, int]:
        return self.report["failed_check"], self.status

    def __getitem__(self, check: str) -> str:
        return str(self.checks[check]["status"])

    def fact(self, check: str) -> str:
        return str(self.checks[check]["fact"])

    def hint(self, check: str) -> str:
        return str(self.checks[check]["hint"])


def ask(
    url: str,
    key: Key,
    target: tuple[str, int] | None = None,
    *,
    service: str = "auto",
    ca_file: str | None = None,
    short: Mapping[str, float] | None = None,
    before_request: Callable[[], object] | None = None,
) -> Diagnosis:
    """Run the doctor.

    Args:
        url: As the command takes it.
        key: The only one it has.
        target: As the command takes it; ``None`` for none.
        service: As the command takes it.
        ca_file: As the setting; ``None`` for none.
        short: Seconds for what the test lets run out: ``connect``, ``secure``, ``health``,
            ``long_messages``, or a step of :class:`UnevenProbe`. Everything else has :data:`HANG`, and the
            report says so.
        before_request: Called before the target is asked.
    """
    seconds = short or {}

    def connect(address: str, port: int, timeout: float) -> TcpConnection:
        made = socket.create_connection((address, port), seconds.get("connect", timeout))
        return UnevenConnection(made, seconds)

    def health(settings: Settings) -> Health:
        timeout = seconds.get("health", settings.timeout)
        return check_health(settings.known_endpoint, settings.known_key, Deadline(timeout))

    def longest(settings: Settings) -> Passage:
        timeout = seconds.get("long_messages", settings.timeout)
        return send_longest(settings.known_endpoint, settings.known_key, Deadline(timeout))

    def make_probe(settings: Settings, clock: Clock) -> UnevenProbe:
        return UnevenProbe(settings, clock, seconds, before_request)

    out = io.StringIO()
    environ = {"EMISSARY_URL": url, "EMISSARY_AUTH_KEYS": format_keys([key])}
    if ca_file:
        environ["EMISSARY_CA_FILE"] = ca_file
    status = run_doctor(
        Target(*target) if target else None,
        reader=SettingsReader(environ, default_file=None),
        out=out,
        service=service,
        timeout=HANG,
        json_line=True,
        dependencies=Dependencies(connector=connect, probe=make_probe, health=health, longest=longest),
    )
    return Diagnosis(status, out.getvalue())


@contextmanager
def faulty(cloud: LocalCloud, **faults: Any) -> Iterator[None]:
    """Faults in force, and gone afterwards; the same ones whatever test came before.

    With a seed that is in force already, decisions would run on.
    """
    cloud.set_faults(Faults(seed=zlib.crc32(repr(faults).encode()), **faults))
    try:
        yield
    finally:
        cloud.set_faults(Faults())
