"""The shared keys in their secret: listed, added, retired, without a moment in which none is valid.

Secrets Manager has no conditional write. But a version's id is chosen by its writer (``ClientRequestToken``),
and a version is never changed: a second write under the same id with another content is refused. So the id of
what we write is a function of the id of what we have read. Of two operators that start from the same version
one is refused, reads again and does it over.

Source: Secrets Manager API reference, GetSecretValue and PutSecretValue.
"""

from __future__ import annotations

import json
import secrets
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from emissary_lib.exceptions import ConfigError, OperationError
from emissary_lib.protocol.auth.keys import MAX_KEY_ID, Key, format_keys, parse_keys
from emissary_lib.protocol.wire.base64 import encode_unpadded

#: Bytes of a new key.
SECRET_BYTES: Final = 32

#: Tries of a write that somebody else was quicker with, and the pause before each but the first, in seconds.
_TRIES: Final = 5
_PAUSE: Final = 1.0

_CREATED: Final = "created"
_FORM: Final = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key in the secret.

    Attributes:
        key: The key.
        created: When it was made, in seconds since 1970 UTC; None if nobody noted that.
    """

    key: Key
    created: float | None

    @property
    def key_id(self) -> int:
        """The key's number."""
        return self.key.key_id


@dataclass(frozen=True, slots=True)
class _Version:
    id: str
    keys: tuple[StoredKey, ...]


class KeySecret:
    """The keys of one secret.

    Args:
        client: A boto3 Secrets Manager client; its errors pass through.
        secret: ARN or name.
        entropy: Random bytes, as many as asked for.
        clock: Seconds since 1970 UTC.
        sleep: Waits some seconds.

    Every method blocks for a few requests.
    """

    def __init__(
        self,
        client: Any,
        secret: str,
        *,
        entropy: Callable[[int], bytes] = secrets.token_bytes,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = client
        self._secret = secret
        self._entropy = entropy
        self._clock = clock
        self._sleep = sleep

    def list(self) -> tuple[StoredKey, ...]:
        """The keys that are valid, in their order.

        Raises:
            OperationError: The secret holds no keys.
        """
        return self._read().keys

    def new(self, key_id: int | None = None) -> Key:
        """Add a fresh key beside those there are.

        Args:
            key_id: Its id; the next above the highest if not given.

        Raises:
            OperationError: The id is taken, out of range, or the secret cannot be written.
        """
        secret = self._entropy(SECRET_BYTES)

        def add(keys: tuple[StoredKey, ...]) -> tuple[StoredKey, ...]:
            taken = {each.key_id for each in keys}
            number = max(taken) + 1 if key_id is None else key_id
            if number in taken:
                raise OperationError(
                    f"there is a key {number} already; retire it first, or choose another id"
                )
            if number > MAX_KEY_ID:
                raise OperationError(f"key ids end at {MAX_KEY_ID}; choose a free one with --kid")
            return (*keys, StoredKey(_key(number, secret), self._clock()))

        return self._change(add)[-1].key

    def retire(self, key_id: int) -> tuple[StoredKey, ...]:
        """Take a key away; gives those that are left.

        Raises:
            OperationError: There is no such key, or no other one: then nobody could get in any more.
        """

        def remove(keys: tuple[StoredKey, ...]) -> tuple[StoredKey, ...]:
            rest = tuple(each for each in keys if each.key_id != key_id)
            if len(rest) == len(keys):
                ids = ", ".join(str(each.key_id) for each in keys)
                raise OperationError(f"there is no key {key_id}; the keys are: {ids}")
            if not rest:
                raise OperationError(
                    f"key {key_id} is the last one: nobody could dial without it; make another first "
                    "(emissary keys new)"
                )
            return rest

        return self._change(remove)

    def _read(self) -> _Version:
        answer = self._client.get_secret_value(SecretId=self._secret)
        text = answer.get("SecretString")
        if text is None:
            raise OperationError(f"the secret {self._secret} holds bytes, not the text of keys")
        try:
            return _Version(answer["VersionId"], _parse_stored(text, answer["CreatedDate"].timestamp()))
        except ConfigError as exc:
            raise OperationError(f"the secret {self._secret} holds no keys: {exc}") from None

    def _change(
        self, change: Callable[[tuple[StoredKey, ...]], tuple[StoredKey, ...]]
    ) -> tuple[StoredKey, ...]:
        for attempt in range(_TRIES):
            if attempt:
                self._sleep(_PAUSE)
            version = self._read()
            changed = change(version.keys)
            if self._write(version.id, changed):
                return changed
        raise OperationError(
            f"the secret {self._secret} was changed by somebody else {_TRIES} times, or an older version of "
            "it was made current by hand; see to that, and try again"
        )

    def _write(self, read: str, keys: Iterable[StoredKey]) -> bool:
        """Make ``keys`` the version that follows ``read``; False if there is another one that does."""
        following = str(uuid.uuid5(uuid.NAMESPACE_OID, read))
        try:
            self._client.put_secret_value(
                SecretId=self._secret, ClientRequestToken=following, SecretString=_text(keys)
            )
        except self._client.exceptions.ResourceExistsException:
            return False
        return True


def settings_line(key: Key) -> str:
    """The line that the platform's side needs. It holds the secret."""
    return f"EMISSARY_AUTH_KEYS='{format_keys([key])}'"


def _key(key_id: int, secret: bytes) -> Key:
    try:
        return Key(key_id, secret)
    except ConfigError as exc:
        raise OperationError(str(exc)) from None


def _parse_stored(text: str, version_created: float) -> tuple[StoredKey, ...]:
    keys = parse_keys(text)
    document = json.loads(text)
    if isinstance(document, dict):
        # As the stack made it: there has been no other version, so the key is as old as this one.
        return (StoredKey(keys[0], _creation_time(document) or version_created),)
    return tuple(StoredKey(key, _creation_time(item)) for key, item in zip(keys, document, strict=True))


def _creation_time(item: dict[str, Any]) -> float | None:
    try:
        return datetime.strptime(item[_CREATED], _FORM).replace(tzinfo=UTC).timestamp()
    except (KeyError, TypeError, ValueError):
        return None


def _text(keys: Iterable[StoredKey]) -> str:
    document = []
    for each in keys:
        item = {"kid": each.key_id, "data": encode_unpadded(each.key.secret)}
        if each.created is not None:
            item[_CREATED] = format_time(each.created)
        document.append(item)
    return json.dumps(document)


def format_time(seconds: float) -> str:
    """A moment as ``2026-11-22T10:15:00Z``."""
    return datetime.fromtimestamp(seconds, UTC).strftime(_FORM)
