"""Settings from the environment: each function reads what its part of template.yaml gives it.

A reader returns frozen settings or raises one :class:`ConfigError` that lists every fault at once. No message
ever repeats the value of a secret.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar

from emissary_lib.protocol.errors import ConfigError
from emissary_lib.protocol.keys import KeyRing, parse_keys
from emissary_lib.protocol.targets import AllowList

AUTH_KEYS: Final = "EMISSARY_AUTH_KEYS"
ALLOWED_TARGETS: Final = "EMISSARY_ALLOWED_PROXY_TARGETS"
TABLE: Final = "EMISSARY_TABLE"
RELAY_FUNCTION: Final = "EMISSARY_RELAY_FUNCTION"
LOG_LEVEL: Final = "EMISSARY_LOG_LEVEL"
REGION: Final = "AWS_REGION"

_LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ConnectSettings:
    """Of ``$connect``."""

    table: str
    region: str
    keys: KeyRing = field(repr=False)


@dataclass(frozen=True, slots=True)
class DefaultSettings:
    """Of ``$default``."""

    table: str
    region: str
    relay_function: str
    allow: AllowList
    keys: KeyRing = field(repr=False)


@dataclass(frozen=True, slots=True)
class DisconnectSettings:
    """Of ``$disconnect``."""

    table: str
    region: str


def connect_settings(environ: Mapping[str, str]) -> ConnectSettings:
    """Read the settings of ``$connect``.

    Raises:
        ConfigError: With every fault.
    """
    reader = _Reader(environ)
    table, region = reader.text(TABLE), reader.text(REGION)
    keys = reader.parsed(AUTH_KEYS, lambda text: KeyRing(parse_keys(text)), KeyRing())
    reader.finish()
    return ConnectSettings(table, region, keys)


def default_settings(environ: Mapping[str, str]) -> DefaultSettings:
    """Read the settings of ``$default``.

    Raises:
        ConfigError: With every fault.
    """
    reader = _Reader(environ)
    table, region, relay = reader.text(TABLE), reader.text(REGION), reader.text(RELAY_FUNCTION)
    keys = reader.parsed(AUTH_KEYS, lambda text: KeyRing(parse_keys(text)), KeyRing())
    allow = reader.parsed(ALLOWED_TARGETS, AllowList.parse, AllowList())
    reader.finish()
    return DefaultSettings(table, region, relay, allow, keys)


def disconnect_settings(environ: Mapping[str, str]) -> DisconnectSettings:
    """Read the settings of ``$disconnect``.

    Raises:
        ConfigError: With every fault.
    """
    reader = _Reader(environ)
    settings = DisconnectSettings(reader.text(TABLE), reader.text(REGION))
    reader.finish()
    return settings


def log_level(environ: Mapping[str, str]) -> str:
    """The log's level. A wrong one reads as INFO: a log must not be what keeps a function from working."""
    level = environ.get(LOG_LEVEL, "").strip().upper()
    return level if level in _LEVELS else "INFO"


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

    def parsed(self, name: str, parse: Callable[[str], T], instead: T) -> T:
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
