"""Shared keys: their text form, and the ring in which a key id is looked up.

Source: docs/protocol.md section 7; the JSON form is the original Emissary's ``EMISSARY_AUTH_KEYS``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

from emissary_lib.protocol.errors import ConfigError
from emissary_lib.protocol.record import Record, hidden
from emissary_lib.protocol.wire.base64 import EncodingError, decode_unpadded, encode_unpadded

#: Fewest bytes a key's secret may have. Source: docs/protocol.md section 7.
MIN_SECRET: Final = 16

#: Largest key id: it travels as a u32. Source: docs/protocol.md section 7.1.
MAX_KEY_ID: Final = 0xFFFF_FFFF

#: What word processors and chats make of quotes.
_TYPOGRAPHIC: Final = frozenset("\u201c\u201d\u201e\u2018\u2019\u201a\u00ab\u00bb")

#: The JSON of keys, or a part of it; or the base64 of a secret as ``emissary keys new`` makes them.
_KEY_LIKE: Final = re.compile(
    r'.*[{"\u201c\u201d]|(?=.*[a-z])(?=.*[A-Z])(?=.*[0-9])[A-Za-z0-9+/]{43,}={0,2}\Z', re.DOTALL
)


class Key(Record):
    """One shared key.

    Attributes:
        key_id: Which key it is, 0 to 4294967295; public.
        secret: At least 16 bytes; never shown in a ``repr``.

    Raises:
        ConfigError: If the id or the secret is out of range.
    """

    key_id: int
    secret: bytes = hidden()

    def __post_init__(self) -> None:
        faults = list(_faults(self.key_id, self.secret))
        if faults:
            raise ConfigError(*faults)


def _faults(key_id: int, secret: bytes) -> Iterator[str]:
    if not 0 <= key_id <= MAX_KEY_ID:
        yield f"key id {key_id} is not in the range 0 to {MAX_KEY_ID}"
    if len(secret) < MIN_SECRET:
        yield f"key {key_id} has {len(secret)} secret bytes; use at least {MIN_SECRET} random ones"


class KeyRing:
    """The keys that are valid at the moment; immutable, so safe to share between threads.

    Raises:
        ConfigError: If two keys have the same id.
    """

    __slots__ = ("_keys",)

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        found: dict[int, Key] = {}
        faults: list[str] = []
        for key in keys:
            if key.key_id in found:
                faults.append(f"key id {key.key_id} stands for two keys; give each key its own id")
            found[key.key_id] = key
        if faults:
            raise ConfigError(*faults)
        self._keys = found

    def get(self, key_id: int) -> Key | None:
        """The key with this id, or None."""
        return self._keys.get(key_id)

    @property
    def key_ids(self) -> tuple[int, ...]:
        """The ids, in the order in which the keys were given; public."""
        return tuple(self._keys)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._keys.values())

    def __len__(self) -> int:
        return len(self._keys)

    def __repr__(self) -> str:
        return f"KeyRing(key_ids={self.key_ids})"


def unquote(text: str) -> str:
    """A value without the one pair of quotes around it, which some that pass variables on leave there.

    Example:
        >>> unquote("'[1]'"), unquote("'"), unquote('it"s')
        ('[1]', "'", 'it"s')
    """
    return text[1:-1] if len(text) >= 2 and text[0] == text[-1] and text[0] in "'\"" else text


def looks_like_keys(text: str) -> bool:
    """Whether a value that is to be something else may be keys that were put in the wrong place.

    Example:
        >>> looks_like_keys('[{"kid": 1'), looks_like_keys("/run/secrets/keys")
        (True, False)
    """
    return bool(_KEY_LIKE.match(text))


def shown(text: str) -> str:
    """A value that is wrong as a message may have it: nobody is to see keys in the wrong place."""
    return "(it looks like a key, and is not shown)" if looks_like_keys(text) else text


def parse_keys(text: str) -> tuple[Key, ...]:
    """Read keys from ``[{"kid": 1, "data": "<base64>"}]``, or from one such object.

    Args:
        text: JSON, in quotes or not. ``data`` is base64 (RFC 4648 section 4), padded or not. Other members
            are ignored.

    Returns:
        At least one key, in the order given.

    Raises:
        ConfigError: Lists every fault at once: JSON, a missing or wrong member, a short secret, a key id
            given twice, no key at all. It never repeats ``data``.

    Example:
        >>> parse_keys('{"kid": 7, "data": "MDEyMzQ1Njc4OWFiY2RlZg"}')
        (Key(key_id=7),)
    """
    import json  # only who reads or writes keys has to load it

    try:
        document = json.loads(unquote(text.strip()))
    except (ValueError, RecursionError):
        # The cause is dropped: json's error keeps the whole text, secrets included.
        odd = (
            "have typographic quotes, which JSON does not know"
            if set(text) & _TYPOGRAPHIC
            else "are not JSON"
        )
        raise ConfigError(f'keys {odd}; want [{{"kid": 1, "data": "<base64>"}}]') from None
    items = [document] if isinstance(document, dict) else document
    if not isinstance(items, list) or not items:
        raise ConfigError('no key is given; want [{"kid": 1, "data": "<base64>"}]')
    keys: list[Key] = []
    faults: list[str] = []
    for position, item in enumerate(items, start=1):
        try:
            keys.append(_parse_key(item, position))
        except ConfigError as error:
            faults.extend(error.faults)
    try:
        KeyRing(keys)
    except ConfigError as error:
        faults.extend(error.faults)
    if faults:
        raise ConfigError(*faults)
    return tuple(keys)


def _parse_key(item: Any, position: int) -> Key:
    if not isinstance(item, dict):
        raise ConfigError(f'key number {position} is not an object; want {{"kid": 1, "data": "<base64>"}}')
    key_id, data = item.get("kid"), item.get("data")
    faults: list[str] = []
    # JSON's true is an int to Python.
    if not isinstance(key_id, int) or isinstance(key_id, bool):
        faults.append(f'key number {position}: "kid" is not a whole number')
        key_id = 0
    secret = b""
    if not isinstance(data, str):
        faults.append(f'key number {position}: "data" is not a text')
    else:
        try:
            secret = _decode_secret(data)
        except EncodingError:
            faults.append(f'key number {position}: "data" is not base64')
    if faults:
        raise ConfigError(*faults)
    try:
        return Key(key_id, secret)
    except ConfigError as error:
        raise ConfigError(*(f"key number {position}: {fault}" for fault in error.faults)) from None


def _decode_secret(data: str) -> bytes:
    bare = data.rstrip("=")
    if data not in (bare, bare + "=" * (-len(bare) % 4)):
        raise EncodingError("wrong padding")
    return decode_unpadded(bare)


def format_keys(keys: Iterable[Key]) -> str:
    """Write keys as the JSON text that :func:`parse_keys` reads. The text holds the secrets."""
    import json  # as above

    return json.dumps([{"kid": key.key_id, "data": encode_unpadded(key.secret)} for key in keys])
