"""Somebody who looks at the session table from outside, as an operator would list sessions.

He reads each item both ways: cheaply, where DynamoDB may answer with what was there before the last write,
and consistently, as all functions do, where it must not.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.session import Session as Sdk

from emissary_lib.bridge.items import read_session, session_key
from emissary_lib.bridge.session import RecordState
from tests.soak.every import every
from tests.soak.work import Context

#: Seconds between two looks.
_PAUSE: Final = 0.3

_ORDER: Final = (RecordState.OPENING, RecordState.INVOKED, RecordState.OPEN, RecordState.ENDED)

#: How far a session is: it never goes back.
Progress = tuple[int, int, int]


@contextlib.contextmanager
def reading_the_table(context: Context, variables: Mapping[str, str], table: str) -> Iterator[None]:
    """Look at the sessions that were opened last, until the end of the block.

    Args:
        context: Whose sessions; a consistent read that shows less than one before it is a mismatch.
        variables: The operator's, from ``LocalCloud.operator``.
        table: The table's name.
    """
    sdk = Sdk()
    client = sdk.create_client(
        "dynamodb",
        region_name=variables["AWS_REGION"],
        endpoint_url=variables["AWS_ENDPOINT_URL_DYNAMODB"],
        aws_access_key_id=variables["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
        aws_session_token=variables["AWS_SESSION_TOKEN"],
        config=Config(connect_timeout=2, read_timeout=3, retries={"total_max_attempts": 1}),
    )

    known: dict[str, Progress] = {}

    def look() -> None:
        for session in list(context.recent):
            with contextlib.suppress(BotoCoreError, ClientError):  # his own bad luck
                _look_at(client, table, session, known, context)

    with contextlib.closing(client), every(look, pause=_PAUSE, name="soak-table reader"):
        yield


def _look_at(client: Any, table: str, session: str, known: dict[str, Progress], context: Context) -> None:
    key = session_key(session)
    client.get_item(TableName=table, Key=key)
    found = client.get_item(TableName=table, Key=key, ConsistentRead=True)
    seen = progress_of(found["Item"])
    if went_back(known.get(session), seen):
        context.stats.mismatch(f"session {session[:8]}: {seen} follows {known[session]} in consistent reads")
    known[session] = seen


def progress_of(item: Any) -> Progress:
    """State and both epochs."""
    session = read_session(item)
    return _ORDER.index(session.state), session.dialer.epoch, session.relay.epoch


def went_back(before: Progress | None, now: Progress) -> bool:
    """Whether a later read shows an earlier state."""
    return before is not None and any(later < earlier for earlier, later in zip(before, now, strict=True))
