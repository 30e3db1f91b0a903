"""The sessions in their table: who is in, who was, and how to put somebody out."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from emissary_lib.bridge import items
from emissary_lib.bridge.session import (
    OPERATOR,
    EndRecord,
    RecordState,
    RecordStep,
    SessionRecord,
)
from emissary_lib.bridge.writes import Write, end_session
from emissary_lib.exceptions import OperationError
from emissary_lib.protocol.codes import Code

#: A session id, or enough of its beginning to be the only one.
SESSION_ID: Final = re.compile("[0-9a-f]{8,64}")
_ID_LENGTH: Final = 64

_ONLY_FACTS: Final = {
    "ProjectionExpression": ", ".join(f"#{name}" for name in items.FACTS),
    "ExpressionAttributeNames": {f"#{name}": name for name in items.FACTS},
}

_WORDS: Final = {
    RecordState.OPENING: "opening",
    RecordState.INVOKED: "launched",
    RecordState.OPEN: "open",
    RecordState.ENDED: "ended",
}


@dataclass(frozen=True, slots=True)
class ListedSession:
    """One session, as far as the table knows.

    Attributes:
        record: Its item, but for what is secret.
        lost: Whether its time is up though nobody has said how it ended.
    """

    record: SessionRecord
    lost: bool

    @property
    def state(self) -> str:
        """``opening``, ``launched``, ``open``, ``ended`` or ``lost``."""
        return "lost" if self.lost else _WORDS[self.record.state]

    @property
    def alive(self) -> bool:
        """Whether it may still carry bytes."""
        return not self.lost and self.record.state is not RecordState.ENDED

    @property
    def connections_open(self) -> int | None:
        """How many connections of a shared session are open, as its relay last told; None if it has not."""
        if self.record.connections_opened is None:
            return None
        return self.record.connections.open if self.alive and self.record.connections else 0

    @property
    def ended_at(self) -> float | None:
        """When it ended, in seconds since 1970 UTC; of a lost one, when its time was up."""
        if self.lost:
            return self.record.expires
        return None if self.record.ending is None else self.record.ending.at


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

    def list(self, *, alive: bool = False, everything: bool = False) -> list[ListedSession]:
        """Sessions, the newest first.

        Args:
            alive: Only those that may still carry bytes.
            everything: Also those that never named a target, health checks among them.
        """
        found = [
            each
            for each in self._scan("")
            if (each.alive or not alive) and (each.record.target is not None or everything)
        ]
        return sorted(found, key=lambda each: each.record.started, reverse=True)

    def find(self, session: str) -> ListedSession:
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
                TableName=self._table,
                Key=items.session_key(session),
                ConsistentRead=True,
                **_ONLY_FACTS,
            ).get("Item")
            found = [self._read(item)] if item else []
        else:
            found = list(self._scan(session))
        if not found:
            raise OperationError(f"there is no session {session} in {self._table}; it may have been purged")
        if len(found) > 1:
            ids = ", ".join(each.record.id[:16] for each in found)
            raise OperationError(f"{len(found)} sessions begin with {session}: {ids}; give more digits")
        return found[0]

    def kill(self, session_id: str) -> SessionRecord | None:
        """Set a session to ENDED with KILLED. Nobody is told by that.

        The ``$disconnect`` of its sides gives its slots back; without one they are free when no relay of it
        can run any more.

        Returns:
            The session as it was when it ended: its connections are those to tell. None if it had ended
            already, or was purged.
        """
        ending = EndRecord(Code.KILLED, 0, 0, OPERATOR + uuid.uuid4().hex, self._clock())
        try:
            item = self._update(end_session(session_id, ending, RecordStep.END))
        except self._client.exceptions.ConditionalCheckFailedException as failed:
            # The SDK may have asked twice, when only the answer to the first was lost: then it was us.
            item = failed.response.get("Item")
        killed = None if item is None else items.read_session(item)
        return killed if killed is not None and killed.ending == ending else None

    def _update(self, write: Write) -> items.Item:
        item: items.Item = self._client.update_item(
            TableName=self._table,
            **write.arguments,
            ReturnValues="ALL_NEW",
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
        )["Attributes"]
        return item

    def _scan(self, prefix: str) -> Iterator[ListedSession]:
        pages = self._client.get_paginator("scan").paginate(
            TableName=self._table,
            ConsistentRead=True,  # whoever has just been let in counts too
            FilterExpression="begins_with(#pk, :prefix)",
            ExpressionAttributeValues={":prefix": items.session_key(prefix)[items.KEY]},
            **_ONLY_FACTS,
        )
        for page in pages:
            for item in page["Items"]:
                yield self._read(item)

    def _read(self, item: items.Item) -> ListedSession:
        record = items.read_session(item)
        return ListedSession(record, record.loss(self._clock()) is not None)
