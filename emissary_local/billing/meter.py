"""Counts what AWS would bill for a run.

The counting rules are those of the pricing pages, read on the dear side where they are silent: every
connection attempt and every ``@connections`` call that sends no message counts as one message unit. What a
stack costs by the month is not in it: alarms, metrics, a secret, a NAT gateway itself.
"""

from __future__ import annotations

import enum
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final

from emissary_lib.prices import HERE, LAMBDA_LOG_BYTES, Prices
from emissary_local.billing.item_size import item_size

#: Bytes in one billed WebSocket message unit.
#:
#: Source: API Gateway pricing, "WebSocket APIs": messages are metered in 32 KB increments.
MESSAGE_UNIT: Final = 32 * 1024

#: Bytes of item in one write unit, and in one strongly consistent read unit.
#:
#: Source: DynamoDB Developer Guide, "Read and write operations".
WRITE_UNIT: Final = 1024
READ_UNIT: Final = 4096

_WRITES: Final = frozenset({"PutItem", "UpdateItem", "DeleteItem"})
_READS: Final = frozenset({"GetItem", "Query", "Scan", "BatchGetItem"})


def message_units(size: int) -> int:
    """Billed units of one message of ``size`` bytes; an empty message is one unit."""
    return max(1, -(-size // MESSAGE_UNIT))


class Way(enum.Enum):
    """What is between the gateway and whoever sends it bytes or takes them from it; they are billed by it."""

    #: Clients outside AWS: what they get is data transfer out.
    INTERNET = "internet"
    #: The stack's own in the same region: taken to cost nothing. For clients AWS does not say.
    REGION = "region"
    #: The same, behind a NAT gateway: it is paid for both ways.
    NAT = "nat"


@dataclass(frozen=True, slots=True)
class MeterSnapshot:
    """What was counted up to one moment. Goes through JSON unchanged.

    Attributes:
        connects: Connection attempts that reached ``$connect``, refused ones too.
        refused_connects: Those that were refused.
        connection_seconds: Life of all connections together, the open ones up to now.
        messages_in, messages_out: Messages from clients, and to clients.
        message_units_in, message_units_out: The same in 32 KB units.
        callbacks: Calls of ``@connections`` by HTTP method, refused ones too.
        callback_units: Message units of those that sent no message.
        invocations: Invocations by function.
        gb_seconds: Configured memory times run time by function, in GB-seconds.
        write_units, read_units: DynamoDB request units.
        internet_bytes: Of messages to clients outside AWS, without what carries them.
        nat_bytes: Of messages and posts through NAT gateways, either way, likewise.
        log_bytes: That functions have written to their logs; Lambda's own lines come on top.
        logged_invocations: Invocations of which Lambda writes some.
    """

    connects: int = 0
    refused_connects: int = 0
    connection_seconds: float = 0.0
    messages_in: int = 0
    messages_out: int = 0
    message_units_in: int = 0
    message_units_out: int = 0
    callbacks: Mapping[str, int] = field(default_factory=dict)
    callback_units: int = 0
    invocations: Mapping[str, int] = field(default_factory=dict)
    gb_seconds: Mapping[str, float] = field(default_factory=dict)
    write_units: float = 0.0
    read_units: float = 0.0
    internet_bytes: int = 0
    nat_bytes: int = 0
    log_bytes: int = 0
    logged_invocations: int = 0

    def to_json(self) -> str:
        """The snapshot as one JSON object."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> MeterSnapshot:
        """Read what :meth:`to_json` wrote.

        Raises:
            ValueError: If ``text`` is not JSON.
            TypeError: If it holds something else than a snapshot.
        """
        return cls(**json.loads(text))

    def __sub__(self, earlier: MeterSnapshot) -> MeterSnapshot:
        """What was counted since ``earlier``."""
        changed: dict[str, Any] = {}
        for each in fields(self):
            now, then = getattr(self, each.name), getattr(earlier, each.name)
            if isinstance(now, Mapping):
                changed[each.name] = {key: value - then.get(key, 0) for key, value in now.items()}
            else:
                changed[each.name] = now - then
        return MeterSnapshot(**changed)

    def lines(self, prices: Prices = HERE) -> list[tuple[str, float, str, float]]:
        """The bill's lines: what, how much, in which unit, dollars."""
        units = self.message_units_in + self.message_units_out + self.callback_units + self.connects
        minutes = self.connection_seconds / 60
        requests = sum(self.invocations.values())
        gb_seconds = sum(self.gb_seconds.values())
        logged = self.log_bytes + self.logged_invocations * LAMBDA_LOG_BYTES
        return [
            ("API Gateway messages", units, "32 KB units", units * prices.websocket_message),
            ("API Gateway connections", minutes, "minutes", minutes * prices.websocket_connection_minute),
            ("Lambda requests", requests, "requests", requests * prices.lambda_request),
            ("Lambda run time", gb_seconds, "GB-seconds", gb_seconds * prices.lambda_gb_second),
            (
                "DynamoDB writes",
                self.write_units,
                "write units",
                self.write_units * prices.dynamodb_write_unit,
            ),
            ("DynamoDB reads", self.read_units, "read units", self.read_units * prices.dynamodb_read_unit),
            (
                "data to the internet",
                self.internet_bytes,
                "bytes",
                self.internet_bytes * prices.internet_byte,
            ),
            ("data through NAT", self.nat_bytes, "bytes", self.nat_bytes * prices.nat_byte),
            ("logs", logged, "bytes", logged * prices.log_byte),
        ]

    def cost(self, prices: Prices = HERE) -> float:
        """Dollars that the run would have cost on AWS, without what a stack costs by the month."""
        return sum(dollars for *_, dollars in self.lines(prices))

    def bill(self, prices: Prices = HERE) -> str:
        """The bill as a table in plain text, functions listed one by one, ending without a newline."""
        rows = [f"What this run would have cost ({prices}):"]
        for what, amount, unit, dollars in self.lines(prices):
            rows.append(f"  {what:<26}{_number(amount):>14} {unit:<12} ${dollars:>12.8f}")
            if what == "Lambda run time":
                rows += [
                    f"    {name}: {count} requests, {self.gb_seconds.get(name, 0.0):.4f} GB-seconds"
                    for name, count in sorted(self.invocations.items())
                ]
        rows.append(f"  {'total':<53} ${self.cost(prices):>12.8f}")
        return "\n".join(rows)


def _number(amount: float) -> str:
    return f"{amount:,d}" if isinstance(amount, int) else f"{amount:,.4f}"


class Meter:
    """Counts as the local cloud runs.

    Thread safety: none; it belongs to the cloud process's event loop.

    Args:
        clock: Seconds on a clock that never goes back, for the life of connections.
        logged: How many bytes the functions have written to their logs.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, logged: Callable[[], int] = lambda: 0
    ) -> None:
        self._clock = clock
        self._logged = logged
        self._open: dict[str, float] = {}
        self._sums: Counter[str] = Counter()
        self._seconds = 0.0
        self._units = {"write": 0.0, "read": 0.0}
        self._callbacks: Counter[str] = Counter()
        self._invocations: Counter[str] = Counter()
        self._logged_invocations = 0
        self._gb_seconds: dict[str, float] = {}

    def connect(self, *, accepted: bool) -> None:
        """Count one connection attempt that ``$connect`` has decided."""
        self._sums["connects"] += 1
        self._sums["refused_connects"] += not accepted

    def open_connection(self, connection_id: str) -> None:
        """A connection's billed life begins."""
        self._open[connection_id] = self._clock()

    def close_connection(self, connection_id: str) -> None:
        """It ends; an unknown or ended one is ignored."""
        since = self._open.pop(connection_id, None)
        if since is not None:
            self._seconds += self._clock() - since

    def message_in(self, size: int, way: Way) -> None:
        """Count one message of ``size`` bytes from a client."""
        self.sent(size, way)
        self._sums["messages_in"] += 1
        self._sums["message_units_in"] += message_units(size)

    def message_out(self, size: int, way: Way) -> None:
        """Count one message of ``size`` bytes to a client."""
        self._sums["internet_bytes"] += size if way is Way.INTERNET else 0
        self._sums["nat_bytes"] += size if way is Way.NAT else 0
        self._sums["messages_out"] += 1
        self._sums["message_units_out"] += message_units(size)

    def sent(self, size: int, way: Way) -> None:
        """Count the bytes of what came to the gateway."""
        self._sums["nat_bytes"] += size if way is Way.NAT else 0

    def callback(self, method: str, *, posted: bool = False) -> None:
        """Count one call of ``@connections``; ``posted`` if it sent a message (counted by itself)."""
        self._callbacks[method] += 1
        self._sums["callback_units"] += not posted

    def invocation(self, function: str, seconds: float, memory_mb: int, *, logged: bool = True) -> None:
        """Count one invocation.

        Args:
            function: Its logical id.
            seconds: Billed duration; rounded up to whole milliseconds, as Lambda does.
            memory_mb: Configured memory.
            logged: Whether Lambda writes lines of its own of it.
        """
        self._invocations[function] += 1
        self._logged_invocations += logged
        billed = math.ceil(round(seconds * 1000, 6)) / 1000
        self._gb_seconds[function] = self._gb_seconds.get(function, 0.0) + billed * memory_mb / 1024

    def dynamodb(
        self, operation: str, request: bytes, response: bytes = b"", written: Sequence[int] = ()
    ) -> None:
        """Count one DynamoDB request, failed conditions too (they are billed as well).

        A write costs by the larger of the item's sizes before and after; where those are not known, by that
        of the JSON, which is a little more. A read costs by the size of each item, but a query or a scan by
        that of all its items together. (What a filter or a projection leaves out costs on AWS, and is not
        counted here.)

        Source: DynamoDB Developer Guide, "Write operation consumption", "Read operation consumption".

        Args:
            operation: For example ``PutItem``; one that has no request units (CreateTable) is ignored.
            request: The request's JSON.
            response: The answer's JSON; read operations are counted by it.
            written: Bytes of each item that was written or checked, the larger of before and after.

        Raises:
            ValueError: If the request is not JSON.
        """
        if written:
            each = 2 if operation == "TransactWriteItems" else 1
            self._units["write"] += sum(each * _units(size, WRITE_UNIT) for size in written)
        elif operation in _WRITES:
            self._units["write"] += _units(len(request), WRITE_UNIT)
        elif operation == "BatchWriteItem":
            for requests in json.loads(request)["RequestItems"].values():
                self._units["write"] += sum(_units(len(json.dumps(each)), WRITE_UNIT) for each in requests)
        elif operation == "TransactWriteItems":
            items = json.loads(request)["TransactItems"]
            self._units["write"] += sum(2 * _units(len(json.dumps(each)), WRITE_UNIT) for each in items)
        elif operation == "TransactGetItems":
            self._units["read"] += sum(
                2 * _units(item_size(each.get("Item", {})), READ_UNIT)
                for each in json.loads(response or b"{}").get("Responses", [])
            )
        elif operation in _READS:
            self._units["read"] += _read_units(operation, request, response)

    def snapshot(self) -> MeterSnapshot:
        """Everything counted so far."""
        now = self._clock()
        return MeterSnapshot(
            **self._sums,
            connection_seconds=self._seconds + sum(now - since for since in self._open.values()),
            callbacks=dict(self._callbacks),
            invocations=dict(self._invocations),
            gb_seconds=dict(self._gb_seconds),
            write_units=self._units["write"],
            read_units=self._units["read"],
            log_bytes=self._logged(),
            logged_invocations=self._logged_invocations,
        )


def _units(size: int, unit: int) -> int:
    return max(1, -(-size // unit))


def _read_units(operation: str, request: bytes, response: bytes) -> float:
    asked, answer = json.loads(request), json.loads(response or b"{}")
    if operation != "BatchGetItem":
        items = answer.get("Items") or [answer.get("Item", {})]
        return _units(sum(map(item_size, items)), READ_UNIT) * (1.0 if asked.get("ConsistentRead") else 0.5)
    # Every item is rounded up by itself, and each table chooses its own consistency; a key that was not
    # found still costs a unit.
    found = answer.get("Responses", {})
    total = 0.0
    for table, wanted in asked["RequestItems"].items():
        items = found.get(table, [])
        units = sum(_units(item_size(item), READ_UNIT) for item in items)
        units += len(wanted["Keys"]) - len(items)
        total += units * (1.0 if wanted.get("ConsistentRead") else 0.5)
    return total
