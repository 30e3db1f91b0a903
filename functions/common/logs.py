"""Log lines of the functions: one name for each field, and nothing that is not on the list.

A line is a short fixed text, the session id where there is one, and fields. Only the fields named here can be
logged, so that no key, MAC, nonce, token or payload gets into a log by oversight. The form of the lines
(JSON) is set up by ``adapters/json_logging.py``.
"""

from __future__ import annotations

import logging
from typing import Final

#: The one logger of the functions.
NAME: Final = "emissary"

#: Fields that may be logged. None of them is secret, and none holds what the user's program sent.
FIELDS: Final = frozenset(
    {
        "account_id",
        "cause",
        "close_code",
        "code",
        "connection_id",
        "connections",
        "dialer_bytes",
        "dialer_epoch",
        "dialer_left",
        "dialer_messages",
        "duration_s",
        "ended",
        "epoch",
        "estimated_cost_usd",
        "function",
        "generation",
        "implausible",
        "instance",
        "key_id",
        "prices",
        "reason",
        "relay_bytes",
        "relay_epoch",
        "relay_left",
        "relay_messages",
        "reported_by",
        "request_id",
        "role",
        "route",
        "source",
        "started",
        "state",
        "status",
        "target",
    }
)

_WITHHELD: Final = "[withheld]"

_LOGGER = logging.getLogger(NAME)
_LOGGER.addHandler(logging.NullHandler())

Field = str | int | float | None


def info(text: str, *, session: str | None = None, **fields: Field) -> None:
    """Log what happened."""
    _write(logging.INFO, text, session, fields)


def warning(text: str, *, session: str | None = None, **fields: Field) -> None:
    """Log what somebody may have to look at: a refusal, a throttle, a peer that broke a rule."""
    _write(logging.WARNING, text, session, fields)


def error(text: str, exc: BaseException, *, session: str | None = None, **fields: Field) -> None:
    """Log a failure of our own, with its traceback (which shows code, never the values of variables)."""
    _write(logging.ERROR, text, session, fields, exc)


def _write(
    level: int,
    text: str,
    session: str | None,
    fields: dict[str, Field],
    exc: BaseException | None = None,
) -> None:
    if not _LOGGER.isEnabledFor(level):
        return
    shown = {name: value if name in FIELDS else _WITHHELD for name, value in fields.items()}
    # The line's location is that of whoever called info(), warning() or error().
    _LOGGER.log(level, text, extra={"session": session, **shown}, exc_info=exc, stacklevel=3)
