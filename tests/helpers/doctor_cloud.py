"""The doctor sent out on the local cloud, and what he told."""

from __future__ import annotations

import io
import json
import socket
import ssl
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from emissary_lib import Key, LocalCloud
from emissary_lib.cli.doctor import run_doctor
from emissary_lib.client.health import Health, check_health
from emissary_lib.doctor.configuration import Settings
from emissary_lib.doctor.network import TcpConnection
from emissary_lib.doctor.ports import Clock, HttpAnswer, Tls
from emissary_lib.doctor.probe import SessionWay
from emissary_lib.doctor.run import World
from emissary_lib.protocol.auth.keys import format_keys
from emissary_lib.protocol.opening.banner import Banner
from emissary_lib.protocol.targets.allow_list import Target
from emissary_lib.transport.deadline import Deadline
from emissary_local import Faults
from tests.helpers.patience import HANG

T = TypeVar("T")


class UnevenWay(SessionWay):
    """Has all the time that it takes for each step, but for those that a test lets run out.

    Args:
        settings, clock: As the doctor gives them.
        short: Seconds for some steps, by their names.
        before_greeting: Called before the target is asked; from then on a PING is not waited for.
    """

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        short: Mapping[str, float],
        before_greeting: Callable[[], object] | None,
    ) -> None:
        super().__init__(settings.known_endpoint, settings.known_key, clock.monotonic)
        self._short = dict(short)
        self._before_greeting = before_greeting

    def _time_for(self, step: str) -> float:
        return self._short.get(step, HANG)

    def connect_once(self, timeout: float) -> None:
        super().connect_once(self._time_for("connect_once"))

    def enter(self, timeout: float) -> None:
        super().enter(self._time_for("enter"))

    def prove(self, timeout: float) -> Banner:
        return super().prove(self._time_for("prove"))

    def dial(self, target: Target, timeout: float) -> None:
        super().dial(target, self._time_for("dial"))

    def ping(self, timeout: float) -> None:
        super().ping(self._time_for("ping"))

    def converse(self, request: bytes, read: Callable[[bytes, bool], T | None], timeout: float) -> T:
        if self._before_greeting is not None:
            self._before_greeting()
            self._short["ping"] = 1.0
        return super().converse(request, read, self._time_for("converse"))


class UnevenConnection(TcpConnection):
    """The same for the connection that is made before any session."""

    def __init__(self, sock: socket.socket, short: Mapping[str, float]) -> None:
        super().__init__(sock)
        self._short = short

    def secure(self, host: str, context: ssl.SSLContext | None, timeout: float) -> Tls:
        return super().secure(host, context, self._short.get("secure", HANG))

    def ask(self, host: str, path: str, timeout: float) -> HttpAnswer:
        return super().ask(host, path, HANG)


class Told:
    """What the doctor said, as its JSON has it."""

    def __init__(self, status: int, text: str) -> None:
        self.status = status
        self.report: dict[str, Any] = json.loads(text)
        self.rungs: dict[str, dict[str, Any]] = {each["rung"]: each for each in self.report["rungs"]}

    def broke(self) -> tuple[str | None, int]:
        return self.report["broken_at"], self.status

    def __getitem__(self, rung: str) -> str:
        return str(self.rungs[rung]["status"])

    def fact(self, rung: str) -> str:
        return str(self.rungs[rung]["fact"])

    def remedy(self, rung: str) -> str:
        return str(self.rungs[rung]["remedy"])


def ask(
    url: str,
    key: Key,
    target: tuple[str, int] | None = None,
    *,
    greet: str = "auto",
    short: Mapping[str, float] | None = None,
    before_greeting: Callable[[], object] | None = None,
) -> Told:
    """Send the doctor out.

    Args:
        url, key, target, greet: As the command takes them.
        short: Seconds for what the test lets run out: ``connect``, ``secure``, ``health``, or a step
            of :class:`UnevenWay`. Everything else has :data:`HANG`, and the report says so.
        before_greeting: Called before the target is asked.
    """
    seconds = short or {}

    def connect(address: str, port: int, timeout: float) -> TcpConnection:
        made = socket.create_connection((address, port), seconds.get("connect", timeout))
        return UnevenConnection(made, seconds)

    def health(settings: Settings) -> Health:
        timeout = seconds.get("health", settings.timeout)
        return check_health(settings.known_endpoint, settings.known_key, Deadline(timeout))

    def way(settings: Settings, clock: Clock) -> UnevenWay:
        return UnevenWay(settings, clock, seconds, before_greeting)

    out = io.StringIO()
    environ = {"EMISSARY_URL": url, "EMISSARY_AUTH_KEYS": format_keys([key])}
    status = run_doctor(
        Target(*target) if target else None,
        environ=environ,
        out=out,
        greet=greet,
        timeout=HANG,
        json_line=True,
        env_file="no.env",
        world=World(connector=connect, way=way, health=health),
    )
    return Told(status, out.getvalue())


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
