"""Settings from the environment: each function reads what its part of template.yaml gives it.

A reader returns frozen settings or raises one :class:`ConfigError` that lists every fault at once. No message
ever repeats the value of a secret.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from emissary_lib.bridge.limits import smallest
from emissary_lib.bridge.session import RELAY_TIME
from emissary_lib.protocol.auth.keys import KeyRing, parse_keys
from emissary_lib.protocol.constants import GRACE
from emissary_lib.protocol.errors import ConfigError
from emissary_lib.protocol.record import Record, as_dict, hidden
from emissary_lib.protocol.targets.allow_list import AllowList

AUTH_KEYS: Final = "EMISSARY_AUTH_KEYS"
AUTH_KEYS_SECRET: Final = "EMISSARY_AUTH_KEYS_SECRET"
MAX_SESSIONS: Final = "EMISSARY_MAX_SESSIONS"
MAX_SESSIONS_PER_KEY: Final = "EMISSARY_MAX_SESSIONS_PER_KEY"
RELAY_CONCURRENCY: Final = "EMISSARY_RELAY_CONCURRENCY"
ALLOWED_TARGETS: Final = "EMISSARY_ALLOWED_PROXY_TARGETS"
TABLE: Final = "EMISSARY_TABLE"
SLOT_TABLE: Final = "EMISSARY_SLOT_TABLE"
RELAY_TIMEOUT: Final = "EMISSARY_RELAY_TIMEOUT"
GRACE_SECONDS: Final = "EMISSARY_GRACE_SECONDS"
RELAY_IPV6: Final = "EMISSARY_RELAY_IPV6"
RELAY_FUNCTION: Final = "EMISSARY_RELAY_FUNCTION"
LOG_LEVEL: Final = "EMISSARY_LOG_LEVEL"
REGION: Final = "AWS_REGION"
SERVICE: Final = "POWERTOOLS_SERVICE_NAME"

#: Largest limit of sessions. Each of them has a slot of its own, and a free one is found by reading them all.
MOST_SESSIONS: Final = 1000

#: Where the region stands in an ARN: ``arn:partition:service:region:account:resource``.
_ARN_REGION: Final = 3

_LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR")

T = TypeVar("T")


class KeySettings(Record):
    """Where the shared keys are.

    Attributes:
        secret: ARN or name of the secret that holds them; empty if they are in the environment.
        ring: The keys in the environment; empty if they are in a secret.
    """

    secret: str
    ring: KeyRing = hidden()


class ConnectSettings(Record):
    """Of ``$connect``.

    Attributes:
        max_sessions: As in :class:`DefaultSettings`.
        max_sessions_per_key: As in :class:`DefaultSettings`.
        relay_time: How long a relay of the stack can live, in seconds.
        allow_fault: As in :class:`DefaultSettings`.
    """

    table: str
    slot_table: str
    region: str
    relay_function: str
    allow: AllowList
    keys: KeySettings
    max_sessions: int = 0
    max_sessions_per_key: int = 0
    relay_time: float = RELAY_TIME
    allow_fault: str = ""


class DefaultSettings(Record):
    """Of ``$default``.

    Attributes:
        max_sessions: Sessions at once; 0 for any number. Never more than relays that Lambda runs at once: it
            would take the launch of one more, and keep it waiting, and nobody would hear of it.
        max_sessions_per_key: Sessions at once of each key; 0 for any number.
        relay_time: How long a relay of the stack can live, in seconds.
        grace: How long a relay without its WebSocket may come back, in seconds.
        allow_fault: What is wrong with the allow-list's text, which then permits nothing; else empty. Whoever
            holds a key is told: of all settings it is the one that people write by hand.
        nat: Whether the relay's way out is taken to be a NAT gateway, for what a session costs: unless it has
            IPv6.
    """

    table: str
    slot_table: str
    region: str
    relay_function: str
    allow: AllowList
    keys: KeySettings
    max_sessions: int = 0
    max_sessions_per_key: int = 0
    relay_time: float = RELAY_TIME
    grace: float = GRACE
    allow_fault: str = ""
    nat: bool = True


class DisconnectSettings(Record):
    """Of ``$disconnect``.

    Attributes:
        grace: How long a relay without its WebSocket may come back, in seconds.
        nat: As in :class:`DefaultSettings`.
    """

    table: str
    slot_table: str
    region: str
    grace: float = GRACE
    nat: bool = True


def connect_settings(environ: Mapping[str, str]) -> ConnectSettings:
    """Read the settings of ``$connect``.

    Raises:
        ConfigError: With every fault.
    """
    reader = _Reader(environ)
    settings = _launch_settings(reader, environ)
    reader.finish()
    return settings


def _launch_settings(reader: _Reader, environ: Mapping[str, str]) -> ConnectSettings:
    """What whoever launches relays needs: ``$connect`` no more than that, and ``$default`` as well."""
    table, slot_table = reader.text(TABLE), reader.text(SLOT_TABLE)
    region, relay = reader.text(REGION), reader.text(RELAY_FUNCTION)
    keys = reader.keys()
    allow, allow_fault = _read_allow_list(environ)
    most, most_per_key = reader.most_sessions()
    relay_time = reader.seconds(RELAY_TIMEOUT, RELAY_TIME)
    return ConnectSettings(
        table, slot_table, region, relay, allow, keys, most, most_per_key, relay_time, allow_fault
    )


def default_settings(environ: Mapping[str, str]) -> DefaultSettings:
    """Read the settings of ``$default``.

    Raises:
        ConfigError: With every fault.
    """
    reader = _Reader(environ)
    launching = _launch_settings(reader, environ)
    grace, nat = reader.seconds(GRACE_SECONDS, GRACE), not reader.flag(RELAY_IPV6)
    reader.finish()
    return DefaultSettings(**as_dict(launching), grace=grace, nat=nat)


def disconnect_settings(environ: Mapping[str, str]) -> DisconnectSettings:
    """Read the settings of ``$disconnect``.

    Raises:
        ConfigError: With every fault.
    """
    reader = _Reader(environ)
    table, slot_table, region = reader.text(TABLE), reader.text(SLOT_TABLE), reader.text(REGION)
    grace, nat = reader.seconds(GRACE_SECONDS, GRACE), not reader.flag(RELAY_IPV6)
    reader.finish()
    return DisconnectSettings(table, slot_table, region, grace, nat)


def _read_allow_list(environ: Mapping[str, str]) -> tuple[AllowList, str]:
    try:
        return AllowList.parse(environ.get(ALLOWED_TARGETS, "").strip()), ""
    except ConfigError as error:
        return AllowList(), f"{ALLOWED_TARGETS} (template parameter AllowedTargets): {error}"


def _of_another_region(secret: str, region: str) -> list[str]:
    """What is wrong with a secret's ARN, if it names another region than the function's.

    A template's rules cannot take an ARN apart, so that nobody has looked before; and Secrets Manager, asked
    in the function's own region, would not say what is wrong.
    """
    parts = secret.split(":")
    if parts[0] != "arn" or len(parts) <= _ARN_REGION or not region or parts[_ARN_REGION] == region:
        return []
    return [
        f"{AUTH_KEYS_SECRET} (template parameter KeySecretArn): the secret is of the region "
        f"{parts[_ARN_REGION]!r}, the stack of {region!r}; want a secret of the stack's region"
    ]


def log_level(environ: Mapping[str, str]) -> str:
    """The log's level. A wrong one reads as INFO: a log must not be what keeps a function from working."""
    level = environ.get(LOG_LEVEL, "").strip().upper()
    return level if level in _LEVELS else "INFO"


def read_seconds(environ: Mapping[str, str], name: str, default: float, faults: list[str]) -> float:
    """A time from the environment; if it is none, ``faults`` is told so.

    Returns:
        Seconds above 0; ``default`` if the variable is absent or empty.
    """
    text = environ.get(name, "").strip()
    if not text:
        return default
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < math.inf:
        faults.append(f"{name}: {text!r} is no number of seconds above 0")
    return seconds


class _Reader:
    """Collects faults, so that all of them are told at once."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._faults: list[str] = []

    def text(self, name: str) -> str:
        value = self._environ.get(name, "").strip()
        if not value:
            self._faults.append(f"{name} is not set; template.yaml should set it")
        return value

    def keys(self) -> KeySettings:
        secret = self._environ.get(AUTH_KEYS_SECRET, "").strip()
        if secret:
            self._faults += _of_another_region(secret, self._environ.get(REGION, "").strip())
            return KeySettings(secret, KeyRing())
        ring = self.parse(AUTH_KEYS, lambda text: KeyRing(parse_keys(text)), KeyRing())
        return KeySettings("", ring)

    def most_sessions(self) -> tuple[int, int]:
        """Sessions at once, in all and of each key; 0 for any number."""
        most = smallest(self.limit(MAX_SESSIONS), self.limit(RELAY_CONCURRENCY))
        return most, self.limit(MAX_SESSIONS_PER_KEY)

    def limit(self, name: str) -> int:
        text = self._environ.get(name, "").strip() or "0"
        if not (text.isascii() and text.isdigit() and int(text) <= MOST_SESSIONS):
            self._faults.append(f"{name}: {text!r} is no whole number from 0 (no limit) to {MOST_SESSIONS}")
            return 0
        return int(text)

    def flag(self, name: str) -> bool:
        text = self._environ.get(name, "").strip() or "false"
        if text not in ("true", "false"):
            self._faults.append(f"{name}: {text!r} is neither true nor false")
        return text == "true"

    def seconds(self, name: str, default: float) -> float:
        return read_seconds(self._environ, name, default, self._faults)

    def parse(self, name: str, parse: Callable[[str], T], instead: T) -> T:
        text = self.text(name)
        if not text:
            return instead
        try:
            return parse(text)
        except ConfigError as error:
            self._faults.extend(f"{name}: {fault}" for fault in error.faults or (str(error),))
            return instead

    def finish(self) -> None:
        if self._faults:
            raise ConfigError(*self._faults)
