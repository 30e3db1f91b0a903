"""Stage and route throttles: token buckets, as the template sets them.

Source: API Gateway Developer Guide, "Throttle requests to your WebSocket APIs": a steady rate a second and a
burst, by the token bucket algorithm.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from emissary_local.template.specs import Throttle


class TokenBucket:
    """Holds up to ``burst`` tokens, gains ``rate`` a second; each request takes one.

    Args:
        throttle: Both numbers. One that is not set while the other is counts as 0, as has been seen on AWS.
        clock: Seconds on a clock that never goes back.
    """

    def __init__(self, throttle: Throttle, clock: Callable[[], float]) -> None:
        self._burst = float(throttle.burst or 0)
        self._rate = throttle.rate or 0.0
        self._clock = clock
        self._tokens = self._burst
        self._at = clock()

    def take(self) -> bool:
        """Take one token; False if there is none."""
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


class Throttles:
    """The throttles of one stage: each route has a bucket of its own. Routes with no numbers are not limited.

    Args:
        default: For routes that are not in ``routes``.
        routes: Route key to throttle.
        clock: Seconds on a clock that never goes back.

    Thread safety: none; use it on one event loop.
    """

    def __init__(
        self,
        default: Throttle | None = None,
        routes: Mapping[str, Throttle] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._default = default or Throttle(None, None)
        self._routes = dict(routes or {})
        self._clock = clock
        self._buckets: dict[str, TokenBucket | None] = {}

    def allows(self, route: str) -> bool:
        """Count one request of ``route``; False if it is one too many."""
        try:
            bucket = self._buckets[route]
        except KeyError:
            throttle = self._routes.get(route, self._default)
            limited = throttle.burst is not None or throttle.rate is not None
            bucket = self._buckets[route] = TokenBucket(throttle, self._clock) if limited else None
        return bucket is None or bucket.take()
