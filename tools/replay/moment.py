"""Moves the example moment to the present, and results back to the example moment.

An event in ``events/`` was signed at one moment for ever; a function reads a clock of its own. So the date is
replaced, and every MAC that was right at the example moment is made anew: one that was wrong stays wrong, and
another date stays late. What the functions write is translated the other way, so that expectations can be
written down, and read, as if the clock had stood still.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from emissary_lib.protocol.auth.httpdate import http_date
from emissary_lib.protocol.auth.macs import (
    encode_unpadded,
    resume_mac,
    server_mac,
    sign_connect,
    sign_opening,
    socks_password,
    token_hash,
)
from emissary_lib.protocol.opening.exchange import opening_bytes
from tools.replay import example

#: Numbers this near to the example moment, in seconds, are times.
_NEAR: Final = 30 * 86_400.0

#: Results may be this late, in seconds, and are read as if they had come at once. All of the functions' own
#: times are whole minutes apart.
_GRID: Final = 60
_LATE: Final = 25.0

#: What may be base64 of something that holds a date or a MAC.
_BASE64: Final = re.compile(r"[A-Za-z0-9+/]{24,}={0,2}")


class Moment:
    """A translation between the example moment and ``now``.

    Args:
        now: The present, in whole seconds since 1970 UTC.
    """

    def __init__(self, now: float) -> None:
        self._shift = int(now) - int(example.NOW)
        then, present = _signatures(example.DATE), _signatures(http_date(float(int(now))))
        self._forward = dict(zip(then, present, strict=True))
        self._back = dict(zip(present, then, strict=True))

    def map_token(self, text: str, instead: bytes) -> None:
        """Have a token that a function drew read as an example's, and its hash likewise.

        Args:
            text: The token as it came, in unpadded base64.
            instead: The example's.
        """
        token = base64.b64decode(text + "=" * (-len(text) % 4))
        self._back |= {
            token: instead,
            text.encode(): encode_unpadded(instead).encode(),
            token_hash(token).encode(): token_hash(instead).encode(),
        }

    def map_text(self, text: str, instead: str) -> None:
        """Have some other text in results read as ``instead``."""
        self._back[text.encode()] = instead.encode()

    def to_present(self, value: Any) -> Any:
        """An event or an item, moved to the present."""
        return _walk(value, lambda text: _replace(text, self._forward), self._later)

    def to_example(self, value: Any) -> Any:
        """A result, moved to the example moment."""
        return _walk(value, lambda text: _replace(text, self._back), self._earlier)

    def bytes_to_example(self, data: bytes) -> bytes:
        """Bytes of a stream, moved to the example moment."""
        return _substitute(data, self._back)

    def _later(self, number: float) -> float:
        if abs(number - example.NOW) < _NEAR:
            return number + self._shift
        if abs(number / 1000 - example.NOW) < _NEAR:
            return number + self._shift * 1000
        return number

    def _earlier(self, number: float) -> float:
        then = number - self._shift
        if abs(then - example.NOW) >= _NEAR:
            return number
        minute = round(then / _GRID) * _GRID
        return minute if abs(then - minute) <= _LATE else then


def _signatures(date: str) -> list[bytes]:
    """Everything in the events that follows from the date, in the order of dependence."""
    host, key = example.HOST, example.KEY
    connect_mac = sign_connect(key, date=date, nonce=example.NONCE, host=host).mac
    again = resume_mac(
        key, date=date, nonce=example.RESUME_NONCE, host=host, session=example.SESSION, epoch=2
    )
    shown = sign_opening(
        key,
        date=date,
        nonce=example.NONCE,
        host=host,
        window=example.WINDOW,
        stream=opening_bytes(key=key, date=date, nonce=example.NONCE, target=example.TARGET),
    )
    server = server_mac(key, date=date, nonce=example.NONCE, host=host)
    texts = [
        date,
        encode_unpadded(connect_mac),
        encode_unpadded(again),
        socks_password(key, date=date, nonce=example.NONCE),
        encode_unpadded(shown.mac),
    ]
    return [*(text.encode("ascii") for text in texts), server]


def _walk(value: Any, text: Callable[[str], str], number: Callable[[float], float]) -> Any:
    if isinstance(value, Mapping):
        return {key: _walk(each, text, number) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_walk(each, text, number) for each in value]
    if isinstance(value, str):
        return text(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return number(value)
    return value


def _substitute(data: bytes, table: Mapping[bytes, bytes]) -> bytes:
    for old, new in table.items():
        data = data.replace(old, new)
    return data


def _replace(text: str, table: Mapping[bytes, bytes]) -> str:
    text = _substitute(text.encode(), table).decode()
    return _BASE64.sub(lambda found: _inside(found.group(), table), text)


def _inside(text: str, table: Mapping[bytes, bytes]) -> str:
    try:
        data = binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error:
        return text
    changed = _substitute(data, table)
    return text if changed == data else base64.b64encode(changed).decode()
