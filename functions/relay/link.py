"""The relay's link: its own WebSocket towards the bridge, and direct posts towards the dialer."""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable
from typing import Final

from emissary_lib.protocol.constants import ARRIVAL_TIME, ARRIVAL_WAIT, MAX_FRAGMENT, REFUSED_FOR
from emissary_lib.protocol.session.session import Outgoing
from emissary_lib.transport.reconnecting import ReconnectingTransport
from emissary_lib.tunnel.link import SocketLink
from functions.common import logs
from functions.common.errors import (
    MessageTooLargeError,
    PeerBusyError,
    PeerError,
    PeerGoneError,
    PeerRefusedError,
    PeerUnreachableError,
)
from functions.common.ports import PeerLink

#: Posts under way at once: each takes a round trip to API Gateway, and throughput is posts over that time.
MAX_POSTS: Final = 8

#: The same of short messages (docs/protocol.md section 4.8), which carry a quarter as much.
MAX_SHORT_POSTS: Final = 24


class RelayLink(SocketLink):
    """Sends what is for the bridge over the relay's WebSocket, where all answers come, and posts the rest.

    Posts are made by up to ``MAX_POSTS`` threads, or ``MAX_SHORT_POSTS``, which start when needed. Their
    order does not matter. How many messages can wait is bounded by the session's cap on messages in flight.

    A relay that was launched at the door may be quicker than its dialer's 101. So until a post was accepted,
    one that finds no connection is tried again, for a while (docs/protocol.md section 3.7).

    Args:
        transport: The relay's WebSocket, which can be replaced.
        poster: Posts to ``@connections``.
        dialer: The dialer's connection id.
        abandon_at: When to wait no longer for posts under way, on the monotonic clock.
        clock: A monotonic clock.
        pause: Waits so many seconds; whether the link was closed meanwhile, which ends the wait. ``None`` for
            the system's time.

    Attributes:
        on_refused: Told when a post was not accepted; the session sends its bytes again.
        throttled: Posts that were answered 429.
        on_hopeless: Told why, when posts are refused for good (docs/protocol.md section 6).
        on_too_long: Told when a post of more than one fragment was refused for its length; it has to be sent
            again as shorter ones.
        on_gone: Told when the dialer's connection is not known: it is gone, or was replaced.
        on_absent: Told when the dialer's connection has not come about in time.
    """

    def __init__(
        self,
        transport: ReconnectingTransport,
        poster: PeerLink,
        dialer: str,
        *,
        abandon_at: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], bool] | None = None,
    ) -> None:
        super().__init__(transport)
        self._poster = poster
        self._dialer = dialer
        self._abandon_at = abandon_at
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._unposted = 0
        self._most_posts = MAX_POSTS
        self._closed = False
        self._over = threading.Event()
        self._said = False
        self._clock = clock
        self._pause = pause or self._over.wait
        self._arrived = False
        self._absent_since: float | None = None  # and nothing else has been met since
        self._refused_since: float | None = None  # and nothing else has been met since
        self.throttled = 0
        self.on_refused: Callable[[], None] = lambda: None
        self.on_hopeless: Callable[[str], None] = lambda reason: None
        self.on_too_long: Callable[[], None] = lambda: None
        self.on_gone: Callable[[], None] = lambda: None
        self.on_absent: Callable[[], None] = lambda: None

    def shorten(self) -> None:
        """From now on messages are short, and more of them are posted at once."""
        self._most_posts = MAX_SHORT_POSTS

    def send(self, message: Outgoing) -> None:
        """Send what is for the bridge over the WebSocket; queue the rest for a post, unless closed."""
        if message.to_bridge:
            super().send(message)
            return
        with self._lock:
            if self._closed:
                return
            self._unposted += 1
            if self._unposted > len(self._threads) < self._most_posts:
                thread = threading.Thread(target=self._post_all, name="emissary-poster", daemon=True)
                self._threads.append(thread)
                thread.start()
        self._queue.put(message.data)

    def redirect(self, connection: str) -> None:
        """The dialer has a new connection: what is posted from now on goes there."""
        with self._lock:
            self._arrived = self._arrived or connection != self._dialer
            self._dialer = connection

    def close(self) -> None:
        """Say goodbye, for good; posts that wait are dropped."""
        with self._lock:
            self._closed = True
        self._over.set()
        super().close()

    def release(self) -> None:
        """Let the posts under way end, and join their threads; bounded by the poster's timeout, and ours.

        What still waits is dropped: the link is closed only when the session is over, and then nobody has a
        use for it, while a gateway that answers slowly could hold up the relay beyond Lambda's limit.
        """
        for _thread in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            left = self._abandon_at - time.monotonic()
            thread.join(None if left == math.inf else max(0.0, left))
        super().release()

    def _note(self, exc: PeerError) -> None:
        """Count a 429; log the first post that failed otherwise: most likely, none of this session ever will.

        A role that may not post, or a private DNS name that leads elsewhere, shows in nothing else.
        """
        if isinstance(exc, PeerBusyError):
            with self._lock:
                self.throttled += 1
        if isinstance(exc, PeerUnreachableError):
            with self._lock:
                first, self._said = not self._said, True
            if first:
                logs.warning("a post was not accepted", connection_id=self._dialer, cause=str(exc))

    def _note_refusal(self, *, refused: bool) -> float:
        """Note what a post met; for how many seconds posts have met nothing but refusals."""
        with self._lock:
            if not refused:
                self._refused_since = None
                return 0.0
            now = self._clock()
            self._refused_since = now if self._refused_since is None else self._refused_since
            return now - self._refused_since

    def _post(self, message: bytes) -> None:
        """Post a message; again and again as long as the dialer's connection may not exist yet."""
        seconds, longest = ARRIVAL_WAIT
        while True:
            try:
                self._poster.post(self._dialer, message)
            except PeerGoneError:
                if not self._may_arrive():
                    raise
            else:
                self._arrived = True
                return
            if self._pause(seconds):
                return  # the session is over, and nobody has a use for it
            seconds = min(longest, 2 * seconds)

    def _may_arrive(self) -> bool:
        """Whether a post that was answered 410 is worth another, to the same connection."""
        with self._lock:
            now = self._clock()
            self._absent_since = now if self._absent_since is None else self._absent_since
            return not self._arrived and now < self._absent_since + ARRIVAL_TIME

    def _post_all(self) -> None:
        while (message := self._queue.get()) is not None:
            try:
                if not self._closed:
                    self._post(message)
                    self._note_refusal(refused=False)
            except PeerGoneError:
                self._note_refusal(refused=False)
                if self._arrived:
                    self.on_gone()
                else:
                    self.on_absent()
            except PeerError as exc:
                self._absent_since = None
                self._note(exc)
                refused_for = self._note_refusal(refused=isinstance(exc, PeerRefusedError))
                if isinstance(exc, MessageTooLargeError):
                    if len(message) > MAX_FRAGMENT:
                        self.on_too_long()
                    else:
                        self.on_hopeless(str(exc))
                elif refused_for >= REFUSED_FOR:
                    self.on_hopeless(
                        f"for {refused_for:.0f} s every post was refused: {exc}; see the relay's permissions "
                        "(execute-api:ManageConnections) and where the API's name leads inside the VPC"
                    )
                else:
                    self.on_refused()
            except Exception as exc:  # else this thread would end, and the session hang for want of it
                logs.error("a post failed", exc)
                self.on_refused()
            finally:
                with self._lock:
                    self._unposted -= 1
