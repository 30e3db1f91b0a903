"""Where the shared keys come from: the environment, or one secret in Secrets Manager.

Secrets Manager is asked by a request of our own, not by Powertools' parameters: that module imports boto3 (as
much as the rest of a cold start), and its cache knows neither of a key id that it has not seen nor of what to
do while Secrets Manager is down.

Source: Secrets Manager API reference, GetSecretValue.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from emissary_lib.protocol.auth.keys import KeyRing, parse_keys
from emissary_lib.protocol.errors import ConfigError
from functions.common import logs
from functions.common.adapters.service import NoAnswerError, Operations, ServiceError
from functions.common.errors import KeysUnavailableError

#: How long keys are taken for current, in seconds: a key that was retired is accepted no longer than this.
MAX_AGE: Final = 300.0

#: Least time between two looks for a key id that is not known, in seconds. It may be new, so it is a reason
#: to look; but at $connect strangers may show as many as they like.
LOOK_INTERVAL: Final = 10.0

#: The same once connected, where whoever is asked about has shown a key that was known there.
PROVEN_INTERVAL: Final = 1.0

#: Least time from a fetch that failed to the next, in seconds: while there are no keys, and while old ones
#: serve, when it would only make everybody wait.
RETRY_INTERVAL: Final = 1.0
STALE_INTERVAL: Final = 10.0

#: How long the last good keys serve on while they cannot be fetched, in seconds since they were.
MAX_STALE: Final = 3600.0


class EnvironmentKeys:
    """:class:`ports.KeySource` of keys that were read with the settings and stay as they are."""

    def __init__(self, ring: KeyRing) -> None:
        self._ring = ring

    def keys(self, wanted: int) -> KeyRing:
        """See :meth:`ports.KeySource.keys`."""
        return self._ring


class Secret:
    """The text of one secret.

    Args:
        client: Secrets Manager.
        secret: Its ARN or name.
    """

    def __init__(self, client: Operations, secret: str) -> None:
        self._client = client
        self._secret = secret

    def __call__(self) -> str:
        """Fetch it. Blocking: for the client's timeouts.

        Raises:
            KeysUnavailableError: It cannot be read, or is no text.
        """
        try:
            answer = self._client.call("GetSecretValue", {"SecretId": self._secret})
        except ServiceError as exc:
            raise KeysUnavailableError(
                f"Secrets Manager refused the keys' secret {self._secret}: {exc.code}"
            ) from exc
        except NoAnswerError as exc:
            raise KeysUnavailableError(f"Secrets Manager did not answer: {exc}") from exc
        text = answer.get("SecretString")
        if not isinstance(text, str):
            raise KeysUnavailableError(f"the keys' secret {self._secret} holds bytes; want a SecretString")
        return text


class SecretKeys:
    """:class:`ports.KeySource` of keys that are fetched, and remembered for :data:`MAX_AGE`.

    Not thread-safe: Lambda runs one invocation at a time.

    Args:
        fetch: Gives the keys' text (see :func:`parse_keys`), or raises KeysUnavailableError.
        clock: Wall clock. A monotonic one may stand still while the environment is frozen, for hours.
        look_interval: Least time between two looks for a key id that is not known, in seconds.
    """

    def __init__(
        self,
        fetch: Callable[[], str],
        clock: Callable[[], float] = time.time,
        *,
        look_interval: float = LOOK_INTERVAL,
    ) -> None:
        self._fetch = fetch
        self._clock = clock
        self._look_interval = look_interval
        self._ring: KeyRing | None = None
        self._fetched = self._tried = self._looked = 0.0
        self._failure: KeysUnavailableError | None = None

    def keys(self, wanted: int) -> KeyRing:
        """See :meth:`ports.KeySource.keys`."""
        now = self._clock()
        if self._is_due(wanted, now):
            self._refresh(now)
        if self._ring is None or not 0 <= now - self._fetched < MAX_STALE:
            raise self._failure or KeysUnavailableError("the keys were fetched too long ago")
        return self._ring

    def _is_due(self, wanted: int, now: float) -> bool:
        # A clock that was set back gives a negative age: that of keys of an unknown age.
        retry = RETRY_INTERVAL if self._ring is None else STALE_INTERVAL
        if self._failure is not None and 0 <= now - self._tried < retry:
            return False
        if self._ring is None or not 0 <= now - self._fetched < MAX_AGE:
            return True
        if self._ring.get(wanted) is not None or 0 <= now - self._looked < self._look_interval:
            return False
        self._looked = now
        return True

    def _refresh(self, now: float) -> None:
        self._tried = now
        try:
            self._ring = _ring(self._fetch())
        except KeysUnavailableError as exc:
            self._failure = exc
            logs.warning("keys not fetched", cause=str(exc))
        else:
            self._fetched, self._failure = now, None


def _ring(text: str) -> KeyRing:
    try:
        return KeyRing(parse_keys(text))
    except ConfigError as exc:  # it names positions and ids, never a secret
        raise KeysUnavailableError(f"the keys' secret: {exc}") from None
