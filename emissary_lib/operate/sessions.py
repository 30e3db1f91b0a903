"""The sessions in their table: who is in, who was, and how to put somebody out.

Reads the items as ``emissary_lib/bridge/items.py`` writes them, and ends one as
``functions/common/adapters/store.py`` does; a test holds the two together.
"""

from __future__ import annotations

import contextlib
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from emissary_lib.exceptions import OperationError
from emissary_lib.operate.clients import aws_errors
from emissary_lib.protocol.codes import MEANINGS, Code, code_of

#: How the id of the request begins that ended a session, when an operator did.
OPERATOR: Final = "operator "

#: How long the facts of a session are kept after its end, in seconds (``emissary_lib.bridge.session``).
RECORD_TIME: Final = 7 * 86_400

#: A session id, or enough of its beginning to be the only one.
SESSION_ID: Final = re.compile("[0-9a-f]{8,64}")
_ID_LENGTH: Final = 64

#: What is read of an item: neither nonce, hashes of tokens, nor the opening's bytes.
_FACTS: Final = (
    "pk",
    "state",
    "key_id",
    "source",
    "target",
    "started",
    "expires",
    "relay_expires",
    "ended_at",
    "ended_by",
    "code",
    "reason",
    "dialer_final",
    "relay_final",
    "dialer_messages",
    "relay_messages",
    "dialer_connection",
    "relay_connection",
    "dialer_epoch",
    "relay_epoch",
    "slots",
)

Item = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class SessionFacts:
    """One session, as far as the table knows. Times are in seconds since 1970 UTC.

    Attributes:
        id: The session id.
        state: ``opening``, ``launched``, ``open``, ``ended``, or ``lost``: past its time, and nobody said so.
        key_id: The key that opened it.
        source: Address that the dialer came from; empty if it was not noted.
        target: Where to; None while the dialer has not said.
        started: When the door let it in.
        ended: When it ended; of a lost one, when its time was up; None while it lives.
        code: Why it ended; None while it lives, and of a lost one.
        reason: The same in words.
        dialer_bytes, relay_bytes: Final offsets of both streams, as far as known.
        dialer_messages, relay_messages: Messages of each side, as far as known.
        connections: The WebSockets of dialer and relay, where they have one.
        generation: Of these connections.
        slots: What it has taken of the limits.
    """

    id: str
    state: str
    key_id: int
    source: str
    target: str | None
    started: float
    ended: float | None
    code: Code | None
    reason: str
    dialer_bytes: int
    relay_bytes: int
    dialer_messages: int
    relay_messages: int
    connections: Mapping[str, str]
    generation: int
    slots: tuple[str, ...]

    @property
    def alive(self) -> bool:
        """Whether it may still carry bytes."""
        return self.state not in ("ended", "lost")


class SessionTable:
    """The sessions of one table.

    Args:
        client: A boto3 DynamoDB client; its errors pass through.
        table: The table's name.
        clock: Seconds since 1970 UTC.

    Every method blocks for its requests; a list reads the whole table.
    """

    def __init__(self, client: Any, table: str, *, clock: Callable[[], float] = time.time) -> None:
        self._client = client
        self._table = table
        self._clock = clock

    def list(self, *, alive: bool = False, everything: bool = False) -> list[SessionFacts]:
        """Sessions, the newest first.

        Args:
            alive: Only those that may still carry bytes.
            everything: Also those that never named a target, health checks among them.
        """
        found = [
            each
            for each in self._scan("S#")
            if (each.alive or not alive) and (each.target is not None or everything)
        ]
        return sorted(found, key=lambda each: each.started, reverse=True)

    def find(self, session: str) -> SessionFacts:
        """The session with this id, or whose id alone begins so.

        Args:
            session: At least 8 digits of the id.

        Raises:
            OperationError: There is none, or more than one.
        """
        if not SESSION_ID.fullmatch(session):
            raise OperationError(f"{session!r} is no session id; want 8 to 64 hexadecimal digits, as listed")
        if len(session) == _ID_LENGTH:
            item = self._client.get_item(
                TableName=self._table, Key={"pk": {"S": f"S#{session}"}}, ConsistentRead=True
            ).get("Item")
            found = [self._read(item)] if item else []
        else:
            found = list(self._scan(f"S#{session}"))
        if not found:
            raise OperationError(f"there is no session {session} in {self._table}; it may have been purged")
        if len(found) > 1:
            ids = ", ".join(each.id[:16] for each in found)
            raise OperationError(f"{len(found)} sessions begin with {session}: {ids}; give more digits")
        return found[0]

    def kill(self, session: SessionFacts) -> SessionFacts | None:
        """Set a session to ENDED with KILLED, and give its slots back. Nobody is told by that.

        Returns:
            The session as it was when it ended: its connections are those to tell. None if it had ended
            already, or was purged.
        """
        now, by = self._clock(), OPERATOR + uuid.uuid4().hex
        values = {
            ":ended": {"S": "ENDED"},
            ":code": {"N": str(int(Code.KILLED))},
            ":zero": {"N": "0"},
            ":by": {"S": by},
            ":at": {"N": repr(now)},
            ":purge": {"N": str(int(now + RECORD_TIME))},
            ":reason": {"S": ""},
        }
        assigned = (
            "#state = :ended, #code = :code, #dialer_final = :zero, #relay_final = :zero,"
            " #dialer_messages = :zero, #relay_messages = :zero, #ended_by = :by, #ended_at = :at,"
            " #purge_at = :purge, #reason = :reason"
        )
        update = f"SET {assigned} REMOVE #fragments"
        try:
            item = self._client.update_item(
                TableName=self._table,
                Key={"pk": {"S": f"S#{session.id}"}},
                UpdateExpression=update,
                ConditionExpression="attribute_exists(#pk) AND #state <> :ended",
                ExpressionAttributeNames={**_names(update), "#pk": "pk"},
                ExpressionAttributeValues=values,
                ReturnValues="ALL_NEW",
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            )["Attributes"]
        except self._client.exceptions.ConditionalCheckFailedException as failed:
            # The SDK may have asked twice, when only the answer to the first was lost: then it was us.
            item = failed.response.get("Item", {})
            if _text(item, "ended_by") != by:
                return None
        killed = self._read(item)
        for slot in killed.slots:
            self._release(slot, killed.id)
        return killed

    def _release(self, slot: str, session_id: str) -> None:
        """Give a slot back, unless another session has it. What cannot be given back runs out by itself."""
        with contextlib.suppress(OperationError), aws_errors():
            self._client.update_item(
                TableName=self._table,
                Key={"pk": {"S": slot}},
                UpdateExpression="SET #expires = :never",
                ConditionExpression="#session = :session",
                ExpressionAttributeNames={"#expires": "expires", "#session": "session"},
                ExpressionAttributeValues={":never": {"N": "0"}, ":session": {"S": session_id}},
            )

    def _scan(self, prefix: str) -> Iterator[SessionFacts]:
        pages = self._client.get_paginator("scan").paginate(
            TableName=self._table,
            ConsistentRead=True,  # whoever has just been let in counts too
            FilterExpression="begins_with(#pk, :prefix)",
            ProjectionExpression=", ".join(f"#{name}" for name in _FACTS),
            ExpressionAttributeNames={f"#{name}": name for name in _FACTS},
            ExpressionAttributeValues={":prefix": {"S": prefix}},
        )
        for page in pages:
            for item in page["Items"]:
                yield self._read(item)

    def _read(self, item: Item) -> SessionFacts:
        facts = _facts(item)
        over = _number(item, "relay_expires") or _number(item, "expires")
        if facts.ended is None and self._clock() > over:
            return replace(facts, state="lost", ended=over)
        return facts


_STATES: Final = {"OPENING": "opening", "INVOKED": "launched", "OPEN": "open", "ENDED": "ended"}


def _facts(item: Item) -> SessionFacts:
    ended = "ended_at" in item
    code = code_of(int(_number(item, "code"))) if ended else None
    connections = {side: _text(item, f"{side}_connection") for side in ("dialer", "relay")}
    return SessionFacts(
        id=_text(item, "pk").removeprefix("S#"),
        state=_STATES.get(_text(item, "state"), _text(item, "state").lower()),
        key_id=int(_number(item, "key_id")),
        source=_text(item, "source"),
        target=_text(item, "target") or None,
        started=_number(item, "started"),
        ended=_number(item, "ended_at") if ended else None,
        code=code,
        reason=_text(item, "reason") or (MEANINGS[code] if code is not None else ""),
        dialer_bytes=int(_number(item, "dialer_final")),
        relay_bytes=int(_number(item, "relay_final")),
        dialer_messages=int(_number(item, "dialer_messages")),
        relay_messages=int(_number(item, "relay_messages")),
        connections={side: connection for side, connection in connections.items() if connection},
        generation=int(_number(item, "dialer_epoch") + _number(item, "relay_epoch")) & 0xFFFF,
        slots=tuple(sorted(item.get("slots", {}).get("SS", ()))),
    )


def _text(item: Item, name: str) -> str:
    return str(item.get(name, {}).get("S", ""))


def _number(item: Item, name: str) -> float:
    return float(item.get(name, {}).get("N", "0"))


def _names(expression: str) -> dict[str, str]:
    return {name: name[1:] for name in re.findall(r"#\w+", expression)}
