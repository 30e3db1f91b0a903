"""What each kind of message costs the account that runs the stack: measured, kept, and put into a document.

The figures are in costs.json, which ``python -m tests.helpers.costs`` measures on the local cloud (``make
costs`` renews document and figures); a test holds the meter against them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from emissary_lib.prices import us_east_1

FILE: Final = Path(__file__).with_suffix(".json")

#: Who can send it: somebody without a key; whoever has one.
STRANGER: Final = "stranger"
KEY_HOLDER: Final = "key holder"

#: No message of a key holder takes more read or write units than this, whatever the limits are.
MOST_UNITS: Final = 60

#: How long a handler takes, in seconds, and what it has of memory, in GB.
HANDLER_SECONDS: Final = 0.025
HANDLER_MEMORY: Final = 0.5

#: Bytes that ``$connect`` logs of one refusal: a line, a figure for CloudWatch, and 26 for each of the two,
#: which CloudWatch Logs adds to an event. Lambda's own lines come on top. Measured: a test looks at the log.
#:
#: Source: "PutLogEvents" in the CloudWatch Logs API reference.
REFUSED_LOG_BYTES: Final = 650

_PRICES: Final = us_east_1("arm64")


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one message, with all that comes of it.

    Attributes:
        who: :data:`STRANGER` or :data:`KEY_HOLDER`.
        message: What is sent.
        invocations: Of handlers; the relay's own is part of the session's price.
        posts: Calls of ``@connections`` by handlers and relay.
        units: Metered messages: in, out, attempts to connect, calls of ``@connections`` that send nothing.
        writes, reads: DynamoDB request units.
    """

    who: str
    message: str
    invocations: int
    posts: int
    units: int
    writes: float
    reads: float

    @property
    def dollars(self) -> float:
        """Of a million, without what is logged."""
        invocation = _PRICES.lambda_request + HANDLER_SECONDS * HANDLER_MEMORY * _PRICES.lambda_gb_second
        return 1e6 * (
            self.units * _PRICES.websocket_message
            + self.invocations * invocation
            + self.writes * _PRICES.dynamodb_write_unit
            + self.reads * _PRICES.dynamodb_read_unit
        )


def load() -> list[Cost]:
    """The figures as they are kept."""
    return [Cost(**each) for each in json.loads(FILE.read_text(encoding="utf-8"))]


def save(costs: Iterable[Cost]) -> None:
    """Keep other figures."""
    FILE.write_text(json.dumps([asdict(cost) for cost in costs], indent=1) + "\n", encoding="utf-8")
