"""Sessions in their table, as the functions write them and as an operator reads and ends them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from emissary_lib.bridge import items
from emissary_lib.bridge import session as stored
from emissary_lib.bridge.limits import Limits
from emissary_lib.bridge.session import EndRecord, RecordState, RecordStep
from emissary_lib.exceptions import OperationError
from emissary_lib.operate.sessions import SessionTable
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.record import replace
from emissary_lib.protocol.role import Role
from emissary_lib.protocol.wire.payloads import Connections
from functions.common.adapters.store import DynamoSessionStore
from tests.helpers.events import DIALER, NOW, RELAY, SESSION
from tests.helpers.fakes import FakeClock
from tests.unit.functions.adapters.conftest import TABLE, Dynamo
from tests.unit.functions.adapters.steps import CLAIM, ENDING, LAUNCH, NEW, open_session, other


@pytest.fixture
def client(dynamo: Dynamo) -> Iterator[Any]:
    made = dynamo.client()
    yield made
    made.close()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW + 10)


@pytest.fixture
def table(client: Any, clock: FakeClock) -> SessionTable:
    return SessionTable(client, TABLE, clock=clock)


def test_an_open_session_is_listed_with_who_where_and_since_when(
    real: DynamoSessionStore, table: SessionTable
) -> None:
    real.create(replace(NEW, source="203.0.113.7"))
    real.launch(SESSION, LAUNCH)
    real.claim(CLAIM)
    (found,) = table.list()
    record = found.record
    assert (record.id, found.state, found.alive) == (SESSION, "open", True)
    assert (record.key_id, record.source, record.target) == (1, "203.0.113.7", "db.internal:5432")
    assert (record.started, found.ended_at, record.ending) == (NEW.started, None, None)
    assert (record.dialer.connection, record.relay.connection) == (DIALER, RELAY)
    assert record.generation == 2


def test_an_ended_session_tells_why_and_how_much(real: DynamoSessionStore, table: SessionTable) -> None:
    open_session(real)
    ending = replace(ENDING, dialer_messages=3, relay_messages=4)
    real.end(SESSION, ending, RecordStep.END)
    (found,) = table.list()
    assert (found.state, found.ended_at, found.record.ending) == ("ended", ENDING.at, ending)
    assert ending.text == "the target reset its TCP connection"
    assert table.list(alive=True) == []


def test_a_shared_session_tells_how_many_connections_it_carries_while_it_is_alive(
    real: DynamoSessionStore, table: SessionTable, clock: FakeClock
) -> None:
    open_session(real)
    assert table.list()[0].connections_open is None
    real.note_connections(SESSION, Connections(5, 2, 1))
    (found,) = table.list()
    assert (found.record.connections, found.connections_open) == (Connections(5, 2, 1), 2)
    clock.now = CLAIM.at + stored.RELAY_TIME + 1
    (found,) = table.list()
    assert (found.state, found.record.connections_opened, found.connections_open) == ("lost", 5, 0)
    clock.now = NOW + 10
    real.end(SESSION, ENDING, RecordStep.END)
    (found,) = table.list()
    assert (found.state, found.record.connections_opened, found.connections_open) == ("ended", 5, 0)


def test_a_relay_that_told_by_its_end_alone_has_no_connections_left(
    real: DynamoSessionStore, table: SessionTable
) -> None:
    open_session(real)
    real.end(SESSION, replace(ENDING, connections=3), RecordStep.END)
    (found,) = table.list()
    assert (found.record.connections_opened, found.connections_open) == (3, 0)


def test_a_session_past_its_time_is_lost(
    real: DynamoSessionStore, table: SessionTable, clock: FakeClock
) -> None:
    open_session(real)
    clock.now = CLAIM.at + stored.RELAY_TIME + 1
    (found,) = table.list()
    assert (found.state, found.ended_at, found.alive) == ("lost", CLAIM.at + stored.RELAY_TIME, False)
    assert (found.record.key_id, found.record.target, found.record.ending) == (1, "db.internal:5432", None)
    assert table.list(alive=True) == []
    session = real.session(SESSION)
    assert session is not None
    assert found.ended_at is not None
    assert session.purge_at >= found.ended_at + stored.RECORD_TIME, "it is listed for as long as any other"


def test_what_never_named_a_target_is_listed_only_on_demand(
    real: DynamoSessionStore, table: SessionTable
) -> None:
    real.create(NEW)
    assert table.list() == []
    assert [each.state for each in table.list(everything=True)] == ["opening"]


def test_the_newest_is_first_and_many_pages_are_read(
    real: DynamoSessionStore, table: SessionTable, client: Any
) -> None:
    for number in range(5):
        real.create(replace(other(number), started=NOW + number))
    paginator = client.get_paginator
    small = Small(paginator("scan"))
    client.get_paginator = lambda name: small
    assert [each.record.started - NOW for each in table.list(everything=True)] == [4, 3, 2, 1, 0]
    assert small.asked["ConsistentRead"] is True, "else whoever has just been let in may be missing"


class Small:
    """A paginator of small pages."""

    def __init__(self, paginator: Any) -> None:
        self._paginator = paginator
        self.asked: dict[str, Any] = {}

    def paginate(self, **arguments: Any) -> Any:
        self.asked = arguments
        return self._paginator.paginate(**arguments, PaginationConfig={"PageSize": 2})


def test_no_secret_and_no_bytes_are_read(client: Any, real: DynamoSessionStore, table: SessionTable) -> None:
    open_session(real)
    (page,) = client.get_paginator("scan").paginate(TableName=TABLE, FilterExpression="begins_with(pk, :p)",
        ExpressionAttributeValues={":p": {"S": "S#"}})  # fmt: skip
    withheld = set(page["Items"][0]) - set(items.FACTS)
    assert {"nonce", "relay_token_hashes", "resume_token_hashes", "instance"} <= withheld
    assert withheld <= {
        "nonce", "relay_token_hashes", "resume_token_hashes", "instance", "date", "host", "version",
        "invoked_at", "purge_at", "dialer_previous", "relay_previous", "claimed_at",
    }  # fmt: skip


def test_a_session_is_found_by_the_beginning_of_its_id(real: DynamoSessionStore, table: SessionTable) -> None:
    open_session(real)
    assert table.find(SESSION[:8]) == table.find(SESSION) == table.list()[0]


@pytest.mark.parametrize(
    ("session", "said"),
    [
        ("1234567", "is no session id; want 8 to 64 hexadecimal digits"),
        ("S#12345678", "is no session id"),
        ("00000000", "2 sessions begin with 00000000: 0000000000000000, "),
        ("ffffffff", "there is no session ffffffff in sessions"),
        ("f" * 64, "there is no session f"),
    ],
)
def test_what_is_not_one_session_is_an_error(
    real: DynamoSessionStore, table: SessionTable, session: str, said: str
) -> None:
    real.create(other(1))
    real.create(other(2))
    with pytest.raises(OperationError, match=said):
        table.find(session)


@pytest.mark.parametrize("step", ["opening", "launched", "open"])
def test_a_kill_is_an_end_as_the_functions_know_it(
    real: DynamoSessionStore, table: SessionTable, clock: FakeClock, step: str
) -> None:
    real.create(NEW)
    if step != "opening":
        real.launch(SESSION, replace(LAUNCH, limits=Limits(5, 5).of(1)))
    if step == "open":
        real.claim(CLAIM)
    killed = table.kill(SESSION)
    session = real.session(SESSION)
    assert session is not None
    assert session.ending is not None
    assert session == killed
    assert session.state is RecordState.ENDED
    assert session.ending == EndRecord(Code.KILLED, 0, 0, session.ending.by, clock.now)
    assert session.ending.by_operator
    assert session.purge_at == int(clock.now + stored.RECORD_TIME)
    taken = 0 if step == "opening" else 1
    held = [real.in_use(limit, LAUNCH.lease - 1) for limit in Limits(5, 5).of(1)]
    assert held == [taken, taken], "its places are given back as its sides go"


def test_a_killed_session_can_neither_be_claimed_nor_taken_up_again_nor_ended_otherwise(
    real: DynamoSessionStore, table: SessionTable
) -> None:
    open_session(real)
    killed = table.kill(SESSION)
    assert real.claim(replace(CLAIM, connection="again=", epoch=2)) is RecordState.ENDED
    outcome = real.end(SESSION, ENDING, RecordStep.END)
    assert not outcome.done
    assert killed is not None
    assert killed.ending is not None
    assert killed.ending.code is Code.KILLED


def test_a_session_that_has_ended_cannot_be_killed(real: DynamoSessionStore, table: SessionTable) -> None:
    open_session(real)
    real.end(SESSION, ENDING, RecordStep.END)
    assert table.kill(SESSION) is None
    session = real.session(SESSION)
    assert session is not None
    assert session.ending == ENDING


def test_a_kill_whose_answer_was_lost_is_done_all_the_same(
    dynamo: Dynamo, real: DynamoSessionStore, table: SessionTable
) -> None:
    open_session(real)
    dynamo.lose_answers = 1
    killed = table.kill(SESSION)
    assert killed is not None
    assert killed.ending is not None
    assert killed.ending.code is Code.KILLED
    assert (killed.dialer.connection, killed.relay.connection) == (DIALER, RELAY)


def test_a_side_that_has_left_is_none_to_tell(real: DynamoSessionStore, table: SessionTable) -> None:
    open_session(real)
    real.clear(SESSION, Role.DIALER, DIALER, 1, NOW)
    killed = table.kill(SESSION)
    assert killed is not None
    assert (killed.dialer.connection, killed.relay.connection) == (None, RELAY)
