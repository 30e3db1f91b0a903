"""Settings of the platform side, from the environment or an ``.env`` file; ``example.env`` explains them."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from emissary_lib.exceptions import ConfigError
from emissary_lib.protocol.keys import Key, parse_keys

URL: Final = "EMISSARY_URL"
AUTH_KEYS: Final = "EMISSARY_AUTH_KEYS"


@dataclass(frozen=True)
class ClientConfig:
    """What a dialer needs.

    Attributes:
        url: The gateway's ``wss://`` URL.
        key: The key it signs with: the first in ``EMISSARY_AUTH_KEYS``.
    """

    url: str
    key: Key = field(repr=False)

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> ClientConfig:
        """Read ``EMISSARY_URL`` and ``EMISSARY_AUTH_KEYS``.

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
        if faults:
            raise ConfigError(*faults)
        return cls(url, keys[0])


def read_env_file(path: pathlib.Path) -> dict[str, str]:
    """Read ``NAME=value`` lines; an absent file reads as empty.

    Blank lines and lines that begin with ``#`` are skipped, ``export`` in front is allowed, and one pair of
    single or double quotes around a value is taken off. Nothing is expanded.

    Raises:
        ConfigError: The file cannot be read, or a line is none of these; names its number, not its text.
    """
    if not path.is_file():
        return {}
    values: dict[str, str] = {}
    try:
        content = path.read_text(encoding="utf-8-sig")
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
    return values
