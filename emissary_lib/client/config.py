"""Settings of the platform side, from the environment or an ``.env`` file; ``example.env`` explains them."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Mapping
from typing import Final

from emissary_lib.exceptions import ConfigError
from emissary_lib.protocol.auth.keys import Key, parse_keys
from emissary_lib.protocol.constants import PING_INTERVAL, PING_REPEAT, PING_WHEN_UNACKED, PONG_DEADLINE
from emissary_lib.protocol.record import Record, hidden
from emissary_lib.protocol.session.keepalive import KeepaliveTimes

logger = logging.getLogger("emissary_lib.config")

URL: Final = "EMISSARY_URL"
AUTH_KEYS: Final = "EMISSARY_AUTH_KEYS"
PING_SECONDS: Final = "EMISSARY_PING_SECONDS"
PONG_SECONDS: Final = "EMISSARY_PONG_SECONDS"

#: What they may be, in seconds; template.yaml takes the same for the relay. NAT gateways and endpoints forget
#: a flow after 350 s.
PING_RANGE: Final = (10.0, 300.0)
PONG_RANGE: Final = (5.0, 60.0)


class ClientConfig(Record):
    """What a dialer needs.

    Attributes:
        url: The gateway's ``wss://`` URL.
        key: The key it signs with: the first in ``EMISSARY_AUTH_KEYS``.
        keepalive: When it asks whether the relay is still there. A PING is repeated four times within the
            deadline, whatever that is.
    """

    url: str
    key: Key = hidden()
    keepalive: KeepaliveTimes = KeepaliveTimes()

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> ClientConfig:
        """Read the settings of the platform's side, as example.env explains them.

        Raises:
            ConfigError: Names every setting that is missing or wrong; never shows a key.
        """
        faults: list[str] = []
        url = environ.get(URL, "").strip()
        if not url:
            faults.append(f"{URL} is not set; take WebSocketUrl from the stack's outputs")
        keys: tuple[Key, ...] = ()
        try:
            if environ.get(AUTH_KEYS, "").strip():
                keys = parse_keys(environ[AUTH_KEYS])
            else:
                faults.append(f'{AUTH_KEYS} is not set; want [{{"kid": 1, "data": "<base64>"}}]')
        except ConfigError as exc:
            faults += [f"{AUTH_KEYS}: {fault}" for fault in exc.faults]
        interval = _seconds(environ, PING_SECONDS, PING_INTERVAL, PING_RANGE, faults)
        deadline = _seconds(environ, PONG_SECONDS, PONG_DEADLINE, PONG_RANGE, faults)
        if faults:
            raise ConfigError(*faults)
        repeat = deadline * PING_REPEAT / PONG_DEADLINE
        times = KeepaliveTimes(interval, min(interval, PING_WHEN_UNACKED), deadline, repeat)
        return cls(url, keys[0], times)


def _seconds(
    environ: Mapping[str, str], name: str, default: float, limits: tuple[float, float], faults: list[str]
) -> float:
    text = environ.get(name, "").strip()
    if not text:
        return default
    least, most = limits
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not least <= seconds <= most:
        faults.append(f"{name}: {text!r} is no number of seconds from {least:g} to {most:g}")
    return seconds


def read_env_file(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read ``NAME=value`` lines; an absent file reads as empty.

    Blank lines and lines that begin with ``#`` are skipped, ``export`` in front is allowed, and one pair of
    single or double quotes around a value is taken off. Nothing is expanded. A file that holds keys and that
    others may write is a warning on the logger ``emissary_lib.config``, once.

    Raises:
        ConfigError: The file cannot be read, or a line is none of these; names its number, not its text.
    """
    if not os.path.isfile(path):
        return {}
    values: dict[str, str] = {}
    try:
        with open(path, encoding="utf-8-sig") as file:
            content = file.read()
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path} cannot be read: {type(exc).__name__}; want UTF-8 text") from None
    for number, line in enumerate(content.splitlines(), start=1):
        text = line.strip().removeprefix("export ").strip()
        if not text or text.startswith("#"):
            continue
        name, equals, value = text.partition("=")
        if not equals or not name.strip().isidentifier():
            raise ConfigError(f"{path}, line {number}: want NAME=value")
        value = value.strip()
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        values[name.strip()] = value
    fault = keys_fault(path, values)
    if fault and str(path) not in _warned:
        _warned.add(str(path))
        logger.warning("%s: chmod 600 %s", fault, path)
    return values


#: Files that were warned of.
_warned: set[str] = set()


def keys_fault(path: str | os.PathLike[str], values: Mapping[str, str]) -> str:
    """What is wrong with who may write a file of settings; empty if nothing is.

    Args:
        path: The file.
        values: What :func:`read_env_file` has read from it.
    """
    if AUTH_KEYS not in values:
        return ""
    try:
        mode = stat.S_IMODE(os.stat(path).st_mode)
    except OSError:  # gone meanwhile
        return ""
    if not mode & (stat.S_IWGRP | stat.S_IWOTH):
        return ""
    return f"{path} holds keys, and others may write it (mode {mode:04o})"
