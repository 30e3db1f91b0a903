"""What the doctor's checks stand on in unit tests: a network, clocks and a session, as a test makes them."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from emissary_lib.client.endpoint import Endpoint
from emissary_lib.client.health import Health
from emissary_lib.client.settings import SettingsReader
from emissary_lib.doctor.configuration import Settings
from emissary_lib.doctor.long_messages import Passage
from emissary_lib.doctor.ports import Connection, HttpAnswer, Probe, Tls
from emissary_lib.doctor.run import Dependencies
from emissary_lib.protocol.auth.httpdate import http_date
from emissary_lib.protocol.auth.keys import Key, format_keys
from emissary_lib.protocol.opening.banner import Banner
from emissary_lib.protocol.targets.allow_list import Target
from emissary_lib.protocol.wire.health import Usage
from emissary_lib.transport.proxy import Proxy

T = TypeVar("T")

HOST = "abc123.execute-api.eu-west-1.amazonaws.com"
URL = f"wss://{HOST}/emissary"
KEY = Key(7, bytes(range(32)))
TARGET = Target("db.internal", 5432)
ENVIRON = {"EMISSARY_URL": URL, "EMISSARY_AUTH_KEYS": format_keys([KEY])}

#: Seconds since 1970 at which tests take place.
NOW = 1_800_000_000.0
DAY = 86_400.0


TRUSTED = Tls("TLSv1.3", "Amazon RSA 2048 M02", NOW + 200 * DAY)


@dataclass
class FakeClock:
    """Two clocks that move only when something takes time."""

    now: float = 100.0
    ahead: float = 0.0

    def monotonic(self) -> float:
        return self.now

    def unix(self) -> float:
        return NOW + self.now - 100.0 + self.ahead

    def pass_(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class FakeNetwork:
    """Names, listeners and certificates.

    Attributes:
        addresses: What the gateway's name resolves to.
        unresolved: Raised instead.
        down: What connecting to an address raises.
        tls: What the handshake tells.
        tls_error: Raised instead.
        answer: The answer to a GET.
        answer_error: Raised instead.
        asked: Host names looked up, and addresses connected to, in order.
        closed: How many connections were closed.
    """

    clock: FakeClock
    addresses: tuple[str, ...] = ("203.0.113.7",)
    unresolved: OSError | None = None
    down: dict[str, OSError] = field(default_factory=dict)
    tls: Tls = TRUSTED
    tls_error: OSError | None = None
    answer: HttpAnswer | None = None
    answer_error: Exception | None = None
    asked: list[object] = field(default_factory=list)
    closed: int = 0

    def resolve(self, host: str, timeout: float) -> tuple[str, ...]:
        self.asked.append(host)
        self.clock.pass_(0.010)
        if self.unresolved:
            raise self.unresolved
        return self.addresses

    def connect(self, address: str, port: int, timeout: float) -> Connection:
        self.asked.append((address, port))
        self.clock.pass_(0.020)
        if address in self.down:
            raise self.down[address]
        return FakeConnection(self)


@dataclass
class FakeConnection:
    network: FakeNetwork

    def secure(self, host: str, context: ssl.SSLContext | None, timeout: float) -> Tls:
        self.network.clock.pass_(0.030)
        if self.network.tls_error:
            raise self.network.tls_error
        return self.network.tls

    def ask(self, host: str, path: str, timeout: float) -> HttpAnswer:
        if self.network.answer_error:
            raise self.network.answer_error
        return self.network.answer or HttpAnswer(403, http_date(NOW + self.network.clock.now - 100.0))

    def close(self) -> None:
        self.network.closed += 1


@dataclass
class FakeProbe:
    """A session whose steps take the time, and raise the errors, that a test wants.

    Attributes:
        clock: Moved by each step.
        takes: Seconds of each step, by its name.
        raises: What a step raises, by its name.
        target_says: What the target sends, piece by piece; then it falls silent.
        target_ends: Whether the target then ends its stream.
        heard: What the target was sent.
        steps: The steps that were taken.
        gateway_errors: See :class:`Probe`.
        relay_spoke: See :class:`Probe`.
    """

    clock: FakeClock
    takes: dict[str, float] = field(default_factory=dict)
    raises: dict[str, Exception] = field(default_factory=dict)
    target_says: tuple[bytes, ...] = ()
    target_ends: bool = False
    heard: bytes = b""
    steps: list[str] = field(default_factory=list)
    gateway_errors: int = 0
    relay_spoke: bool = False

    def _step(self, name: str) -> None:
        self.steps.append(name)
        self.clock.pass_(self.takes.get(name, 0.0))
        if name in self.raises:
            raise self.raises[name]

    def connect_once(self, timeout: float) -> None:
        self._step("connect_once")

    def connect_with_retry(self, timeout: float) -> None:
        self._step("connect_with_retry")

    def prove(self, timeout: float) -> Banner:
        self._step("prove")
        return Banner("emissary-lambda", "1.2.3", 2, bytes(32), bytes(36))

    def dial(self, target: Target, timeout: float) -> None:
        self._step("dial")
        self.relay_spoke = True

    def ping(self, timeout: float) -> None:
        self._step("ping")

    def request(self, request: bytes, read: Callable[[bytes, bool], T | None], timeout: float) -> T:
        self.heard += request
        self._step("request")
        received = b""
        for piece in self.target_says:
            received += piece
            if (made := read(received, False)) is not None:
                return made
        if self.target_ends and (made := read(received, True)) is not None:
            return made
        raise TimeoutError

    def close(self) -> None:
        self.steps.append("close")


def settings(environ: dict[str, str] | None = None, **changes: object) -> Settings:
    """Settings as after the check of the configuration."""
    given = ENVIRON if environ is None else environ
    made = Settings(SettingsReader(given, default_file=None), no_proxy, 20.0)
    made.endpoint, made.key = Endpoint(URL), KEY
    for name, value in changes.items():
        assert hasattr(made, name)
        setattr(made, name, value)
    return made


def no_proxy(url: str) -> Proxy | None:
    return None


HEALTH = Health("1.2.3", 2, (7, 8), Usage(3, 50), Usage())


def dependencies(network: FakeNetwork, *probes: FakeProbe, health: Health = HEALTH) -> Dependencies:
    """What the checks need: this network, whose sessions are these, in this order."""
    left = list(probes)

    def make(settings: Settings, clock: object) -> Probe:
        return left.pop(0)

    return Dependencies(
        network.resolve,
        network.connect,
        network.clock,
        make,
        network.clock.pass_,
        lambda settings: health,
        lambda settings: Passage.PASSES,
    )


def name_error(number: int = socket.EAI_NONAME) -> socket.gaierror:
    """What ``getaddrinfo`` raises."""
    return socket.gaierror(number, "Name or service not known")


def certificate_error(number: int, message: str) -> ssl.SSLCertVerificationError:
    """What a handshake raises that does not like the certificate."""
    error = ssl.SSLCertVerificationError(1, f"certificate verify failed: {message}")
    error.verify_code, error.verify_message = number, message
    return error
