"""Figures for CloudWatch, one line for each event of a session's life, none for a message that is copied.

They go through a logger of their own, as a mapping; ``adapters/emf.py`` gives the lines their form. Outside
Lambda nobody listens, and nothing is written.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Mapping
from typing import Final

#: The logger, apart from that of the log's lines: its level does not depend on EMISSARY_LOG_LEVEL.
NAME: Final = "emissary_metrics"

#: Where CloudWatch shows them, beside the dimension ``service``: the stack's name.
NAMESPACE: Final = "Emissary"

_LOGGER = logging.getLogger(NAME)
_LOGGER.addHandler(logging.NullHandler())


class Metric(enum.Enum):
    """Name and unit of each figure."""

    #: An upgrade was granted, to a dialer or a relay, new or coming back.
    CONNECT_ACCEPTED = ("ConnectAccepted", "Count")
    #: An upgrade was refused because nothing valid was shown: 401 or 403.
    AUTH_FAILURE = ("AuthFailure", "Count")
    #: An upgrade was refused for another reason, a failure of ours included.
    CONNECT_REFUSED = ("ConnectRefused", "Count")
    #: A relay holds a session and has reached its target, or, if it is shared, may be asked for some.
    SESSION_OPENED = ("SessionOpened", "Count")
    #: A session is over, one that was never opened included; a question for health is none.
    SESSION_ENDED = ("SessionEnded", "Count")
    #: It ended with another code than 0.
    SESSION_FAILED = ("SessionFailed", "Count")
    #: From its $connect to its end.
    SESSION_SECONDS = ("SessionSeconds", "Seconds")
    #: Of both streams.
    SESSION_BYTES = ("SessionBytes", "Bytes")
    #: From the dialer's upgrade until the relay has claimed the session and reached the target it has.
    DIAL_MILLISECONDS = ("DialMilliseconds", "Milliseconds")
    #: A connection of a shared session has reached its target.
    CONNECTION_OPENED = ("ConnectionOpened", "Count")
    #: One was not opened, or ended with another code than 0. What a relay declines, another is asked for.
    CONNECTION_FAILED = ("ConnectionFailed", "Count")
    #: From the relay's hearing of it until it has reached the target.
    CONNECTION_MILLISECONDS = ("ConnectionMilliseconds", "Milliseconds")
    #: A relay came too late, could not dial back, or was started with what it cannot use.
    RELAY_ERROR = ("RelayError", "Count")
    #: API Gateway did not take a post: throttled, or the client reads too slowly.
    PEER_THROTTLED = ("PeerThrottled", "Count")

    @property
    def title(self) -> str:
        """Its name in CloudWatch."""
        return self.value[0]

    @property
    def unit(self) -> str:
        """Its unit, as CloudWatch spells it."""
        return self.value[1]


def put(figures: Mapping[Metric, float]) -> None:
    """Write figures, as one line. Thread-safe."""
    if _LOGGER.isEnabledFor(logging.INFO):
        _LOGGER.info("figures", extra={"figures": dict(figures)})


def count(metric: Metric) -> None:
    """It has happened once."""
    put({metric: 1})
