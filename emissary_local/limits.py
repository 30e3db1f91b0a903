"""Every number the local API Gateway enforces, with its unit and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass

from emissary_local.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one local WebSocket API. Frozen; a test makes its own to meet a limit sooner.

    "AWS quotas" below is the page "Quotas for configuring and running a WebSocket API in API Gateway";
    its KB are taken as 1,024 bytes. "Ours" means that AWS publishes no number.

    Attributes:
        frame_bytes: Largest WebSocket frame, in bytes. AWS quotas: 32 KB; more closes with 1009.
        message_bytes: Largest message, in bytes, either way. AWS quotas: 128 KB; more closes with 1009
            (from the client) or answers 413 (to ``@connections``).
        idle_seconds: Silence after which a connection is closed with 1001. AWS quotas: 10 minutes. Only
            data messages count as noise: whether ping frames do is undocumented, so the stricter reading.
        life_seconds: Longest life of a connection; then 1001. AWS quotas: 2 hours.
        integration_seconds: How long a route waits for its function. AWS quotas: 29 seconds.
        url_characters: Longest request target; more is refused with 414. AWS quotas: 4,096.
        head_bytes: Longest HTTP head. Ours.
        head_seconds: How long a client may take to send it. Ours.
        send_buffer_bytes: Bytes that may wait in this process for one slow client, beyond what the
            operating system buffers; a post that finds more answers 429. AWS says only "the WebSocket
            client side buffer is full" (PostToConnection, LimitExceededException). Ours: eight messages.
        close_seconds: How long the gateway waits for the client's half of a close. Ours.
        http_keepalive_seconds: How long an idle ``@connections`` HTTP connection is kept. Ours.
        time_scale: Factor on ``idle_seconds``, ``life_seconds`` and ``integration_seconds``, so that a
            test meets the two-hour limit in milliseconds. In a :class:`LocalCloud` also on functions'
            timeouts, and on the pauses and ages of asynchronous events.
        shortest_run_seconds: No scaled limit on how long a function runs is below this (or its unscaled
            value): real work does not get faster. Ours.
    """

    frame_bytes: int = 32 * 1024
    message_bytes: int = 128 * 1024
    idle_seconds: float = 600.0
    life_seconds: float = 7200.0
    integration_seconds: float = 29.0
    url_characters: int = 4096
    head_bytes: int = 32 * 1024
    head_seconds: float = 30.0
    send_buffer_bytes: int = 1024 * 1024
    close_seconds: float = 5.0
    http_keepalive_seconds: float = 60.0
    time_scale: float = 1.0
    shortest_run_seconds: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 < self.time_scale < float("inf"):
            raise SettingsError(f"a time scale must be more than 0, not {self.time_scale}")

    def run(self, seconds: float) -> float:
        """A limit on how long a function runs, scaled."""
        return max(seconds * self.time_scale, min(seconds, self.shortest_run_seconds))

    @property
    def idle(self) -> float:
        """``idle_seconds``, scaled."""
        return self.idle_seconds * self.time_scale

    @property
    def life(self) -> float:
        """``life_seconds``, scaled."""
        return self.life_seconds * self.time_scale

    @property
    def integration(self) -> float:
        """``integration_seconds``, scaled."""
        return self.run(self.integration_seconds)
