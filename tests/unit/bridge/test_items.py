"""The items' form, which old and new code share for a quarter of an hour after each redeploy."""

from __future__ import annotations

from typing import Any

from emissary_lib.bridge import items
from emissary_lib.bridge.session import Connection, Fragment, RecordState, SessionRecord, Side
from emissary_lib.protocol.role import Role
from emissary_lib.protocol.wire.payloads import Connections
from tests.helpers.events import DATE, DIALER, HOST, NONCE, NOW, SESSION

NEW = SessionRecord(
    SESSION, 1, NONCE, DATE, HOST, NOW, NOW + 60, 1_795_348_000, dialer=Side(DIALER, 1), source="203.0.113.7"
)

#: Written out, so that no attribute changes its name or type by accident.
ITEM: dict[str, dict[str, Any]] = {
    "pk": {"S": "S#" + SESSION},
    "version": {"N": "2"},
    "state": {"S": "OPENING"},
    "key_id": {"N": "1"},
    "nonce": {"B": NONCE},
    "date": {"S": DATE},
    "host": {"S": HOST},
    "started": {"N": "1795342500.0"},
    "expires": {"N": "1795342560.0"},
    "purge_at": {"N": "1795348000"},
    "dialer_connection": {"S": DIALER},
    "dialer_epoch": {"N": "1"},
    "relay_epoch": {"N": "0"},
    "source": {"S": "203.0.113.7"},
}


def test_a_session_item_has_these_attributes() -> None:
    assert items.new_session(NEW) == ITEM
    assert items.read_session(ITEM) == NEW


def test_a_connection_item_has_these_attributes() -> None:
    record = Connection(DIALER, SESSION, Role.DIALER, 1)
    item = items.connection(record, 1_795_348_000)
    assert item == {
        "pk": {"S": "C#" + DIALER},
        "session": {"S": SESSION},
        "role": {"S": "dialer"},
        "epoch": {"N": "1"},
        "purge_at": {"N": "1795348000"},
    }
    assert items.read_connection(item) == record


def test_attributes_of_later_code_are_ignored() -> None:
    assert items.read_session({**ITEM, "later": {"S": "unknown"}}) == NEW


def test_the_relays_deadline_replaces_the_openings() -> None:
    item = {**ITEM, "state": {"S": "OPEN"}, "relay_expires": {"N": "1795343400.5"}}
    session = items.read_session(item)
    assert (session.state, session.expires) == (RecordState.OPEN, 1_795_343_400.5)
    assert session.claimed_at == 1_795_342_500.5, "older code did not write it, and reckoned with 900 s"
    claimed = {**item, "claimed_at": {"N": "1795342501.5"}, "slots_until": {"N": "1795342600"}}
    session = items.read_session(claimed)
    assert (session.claimed_at, session.slots_until) == (1_795_342_501.5, 1_795_342_600)


def test_a_previous_connection_may_be_absent_or_empty() -> None:
    """Absent in an item that older code wrote; empty where there was none to keep."""
    assert items.read_session({**ITEM, "dialer_previous": {"S": ""}}) == NEW
    session = items.read_session({**ITEM, "dialer_epoch": {"N": "2"}, "dialer_previous": {"S": "before="}})
    assert session.dialer == Side(DIALER, 2, previous="before=")


def test_a_fragment_is_its_offset_and_base64() -> None:
    assert items.fragment_text(Fragment(7, b"\xff\x00")) == "7:/wA="
    session = items.read_session({**ITEM, "fragments": {"SS": ["7:/wA=", "0:"]}})
    assert session.fragments == {Fragment(7, b"\xff\x00"), Fragment(0, b"")}


def test_the_hashes_of_all_launches_are_read_and_those_that_older_code_wrote_of_the_last() -> None:
    older = {**ITEM, "relay_token_hash": {"S": "c"}, "resume_token_hash": {"S": "d"}}
    session = items.read_session(older)
    assert session.relay_token_hashes == {"c"}
    assert session.resume_token_hashes == {"d"}
    both = {**older, "relay_token_hashes": {"SS": ["a"]}, "resume_token_hashes": {"SS": ["b"]}}
    session = items.read_session(both)
    assert session.relay_token_hashes == {"a", "c"}
    assert session.resume_token_hashes == {"b", "d"}


def test_what_a_relay_told_of_its_connections_is_there_if_it_told_any() -> None:
    """Older code writes none of it; so do the relays of sessions with one target."""
    assert items.read_session(ITEM).connections is None
    told = {f"connections_{name}": {"N": str(at)} for at, name in enumerate(("refused", "open", "opened"), 3)}
    session = items.read_session({**ITEM, "state": {"S": "OPEN"}, **told})
    assert (session.connections, session.connections_opened) == (Connections(5, 4, 3), 5)
    end = {"ended_by": {"S": "request="}, "ended_at": {"N": "1795342600"}, "reported_by": {"S": "relay"}}
    ended = {**ITEM, "state": {"S": "ENDED"}, **told, **end}
    session = items.read_session(ended)
    assert session.ending is not None
    assert (session.ending.connections, session.connections_opened) == (None, 5)
    session = items.read_session({**ended, "carried_connections": {"N": "7"}})
    assert session.ending is not None
    assert (session.ending.connections, session.connections_opened) == (7, 7)


def test_an_operator_reads_what_was_told_of_connections() -> None:
    names = {"connections_opened", "connections_open", "connections_refused", "carried_connections"}
    assert names < set(items.FACTS)
