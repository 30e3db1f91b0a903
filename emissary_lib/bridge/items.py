"""Sessions and connections as DynamoDB items, in the client's own typed form, and back.

Readers ignore attributes they do not know, and give defaults for those that are absent: after a redeploy, new
code meets items of old code for a quarter of an hour, and the other way round.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, Final

from emissary_lib.bridge.session import (
    Connection,
    EndRecord,
    Fragment,
    RecordState,
    SessionRecord,
    Side,
)
from emissary_lib.protocol.codes import code_of
from emissary_lib.protocol.role import Role
from emissary_lib.protocol.wire.payloads import Connections

#: One attribute as the DynamoDB client takes it: ``{"S": "text"}``, ``{"N": "1"}``, ``{"SS": [...]}``.
Attribute = Mapping[str, Any]
Item = Mapping[str, Attribute]

#: The session table's only key. Sessions begin with ``S#``, connections with ``C#``.
KEY: Final = "pk"

#: The keys of the table of slots: a limit's name, and the number of one of its slots. So one query reads all
#: slots of a limit.
LIMIT: Final = "limit"
SLOT: Final = "slot"

#: What an operator reads of a session's item: neither nonce, hashes of tokens, nor the opening's bytes.
FACTS: Final = (
    KEY,
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
    "reported_by",
    "carried_dialer",
    "carried_relay",
    "dialer_connection",
    "relay_connection",
    "dialer_epoch",
    "relay_epoch",
    "slots",
    "connections_opened",
    "connections_open",
    "connections_refused",
    "carried_connections",
)


def session_key(session_id: str) -> dict[str, Attribute]:
    """The key of a session's item."""
    return {KEY: text("S#" + session_id)}


def connection_key(connection_id: str) -> dict[str, Attribute]:
    """The key of a connection's item."""
    return {KEY: text("C#" + connection_id)}


def stack_key() -> dict[str, Attribute]:
    """The key of what is known of the stack as a whole."""
    return {KEY: text("STACK")}


def slot_key(name: str) -> dict[str, Attribute]:
    """The key of a slot by its name, such as ``K#1#0``."""
    limit, _, slot = name.rpartition("#")
    return {LIMIT: text(limit), SLOT: {"N": slot}}


def slot_name(item: Item) -> str:
    """The name of a slot by its item."""
    return f"{item[LIMIT]['S']}#{item[SLOT]['N']}"


def holder(session_id: str) -> Attribute:
    """Who holds a slot. In bytes: a limit is read whole, and its slots are billed by what they hold."""
    return {"B": bytes.fromhex(session_id)}


def text(value: str) -> Attribute:
    """An attribute of type S."""
    return {"S": value}


def number(value: float) -> Attribute:
    """An attribute of type N, with every digit the float has."""
    return {"N": repr(value)}


def fragment_text(fragment: Fragment) -> str:
    """A fragment as a member of a string set: ``offset:base64``."""
    return f"{fragment.offset}:{base64.b64encode(fragment.payload).decode('ascii')}"


def _fragment(member: str) -> Fragment:
    offset, _, payload = member.partition(":")
    return Fragment(int(offset), base64.b64decode(payload))


def new_session(session: SessionRecord) -> dict[str, Attribute]:
    """The item of a session that has just been let in, launched or not: no fragment, no claim, no ending."""
    item = {
        **session_key(session.id),
        "version": number(session.version),
        "state": text(session.state.value),
        "key_id": number(session.key_id),
        "nonce": {"B": session.nonce},
        "date": text(session.date),
        "host": text(session.host),
        "started": number(session.started),
        "expires": number(session.expires),
        "purge_at": number(session.purge_at),
        "dialer_epoch": number(session.dialer.epoch),
        "relay_epoch": number(session.relay.epoch),
        "source": text(session.source),
    }
    if session.dialer.connection is not None:
        item["dialer_connection"] = text(session.dialer.connection)
    if session.invoked_at is not None:
        item["target"] = text(str(session.target))
        item["invoked_at"] = number(session.invoked_at)
        item["relay_token_hashes"] = {"SS": sorted(session.relay_token_hashes)}
        item["resume_token_hashes"] = {"SS": sorted(session.resume_token_hashes)}
    if session.slots:
        item["slots"] = {"SS": sorted(session.slots)}
    return item


def connection(record: Connection, purge_at: int) -> dict[str, Attribute]:
    """A connection's whole item; DynamoDB may delete it after ``purge_at``, in seconds since 1970 UTC."""
    return {
        **connection_key(record.id),
        "session": text(record.session),
        "role": text(record.role.value),
        "epoch": number(record.epoch),
        "purge_at": number(purge_at),
    }


def read_connection(item: Item) -> Connection:
    """What :func:`connection` wrote. Raises KeyError or ValueError if it is no connection's item."""
    return Connection(
        item[KEY]["S"].removeprefix("C#"),
        item["session"]["S"],
        Role(item["role"]["S"]),
        int(item["epoch"]["N"]),
    )


def read_session(item: Item) -> SessionRecord:
    """A session's item; one of which only :data:`FACTS` were read has no nonce and no token's hash."""
    return SessionRecord(
        id=item[KEY]["S"].removeprefix("S#"),
        version=_int(item, "version"),
        state=RecordState(item["state"]["S"]),
        key_id=_int(item, "key_id"),
        nonce=bytes(item.get("nonce", {"B": b""})["B"]),
        date=_text(item, "date") or "",
        host=_text(item, "host") or "",
        started=float(item["started"]["N"]),
        # The relay's deadline replaces the opening's. It is an attribute of its own, so that only the first
        # claim sets it.
        expires=float(item.get("relay_expires", item["expires"])["N"]),
        purge_at=_int(item, "purge_at"),
        dialer=_side(item, "dialer"),
        relay=_side(item, "relay"),
        instance=_text(item, "instance"),
        relay_token_hashes=_hashes(item, "relay_token_hash"),
        resume_token_hashes=_hashes(item, "resume_token_hash"),
        fragments=frozenset(_fragment(member) for member in item.get("fragments", {}).get("SS", ())),
        target=_text(item, "target"),
        invoked_at=_time(item, "invoked_at"),
        ending=_ending(item) if "ended_by" in item else None,
        slots=frozenset(item.get("slots", {}).get("SS", ())),
        source=_text(item, "source") or "",
        claimed_at=_claimed_at(item),
        slots_until=_time(item, "slots_until"),
        connections=_connections(item),
        launch_lost_at=_time(item, "launch_lost_at"),
    )


def _connections(item: Item) -> Connections | None:
    if "connections_opened" not in item:
        return None
    counts = (_int(item, f"connections_{name}") for name in ("opened", "open", "refused"))
    return Connections(*counts)


def _side(item: Item, role: str) -> Side:
    # An empty text stands for "none": an update that copies another attribute can give a value where that is
    # absent, but cannot do without one.
    previous = _text(item, f"{role}_previous") or None
    connection, epoch = _text(item, f"{role}_connection"), _int(item, f"{role}_epoch")
    return Side(connection, epoch, previous, _time(item, f"{role}_left"))


def _claimed_at(item: Item) -> float | None:
    if "claimed_at" in item or "relay_expires" not in item:
        return _time(item, "claimed_at")
    # Older code has not written it, and counted on 900 s, whatever the relay's timeout was.
    return float(item["relay_expires"]["N"]) - 900


def _hashes(item: Item, single: str) -> frozenset[str]:
    """Those of all launches; of a session that older code has launched, that of the last one."""
    last = _text(item, single)
    return frozenset(item.get(f"{single}es", {}).get("SS", ())) | ({last} if last else frozenset())


def _ending(item: Item) -> EndRecord:
    return EndRecord(
        code_of(_int(item, "code")),
        _int(item, "dialer_final"),
        _int(item, "relay_final"),
        item["ended_by"]["S"],
        float(item["ended_at"]["N"]),
        _int(item, "dialer_messages"),
        _int(item, "relay_messages"),
        _text(item, "reason") or "",
        _reporter(item),
        (_int(item, "carried_dialer"), _int(item, "carried_relay")) if "carried_dialer" in item else None,
        _int(item, "carried_connections") if "carried_connections" in item else None,
    )


def _reporter(item: Item) -> Role | None:
    name = _text(item, "reported_by")  # not there in older code's items
    return next((role for role in Role if role.value == name), None)


def _text(item: Item, name: str) -> str | None:
    attribute = item.get(name)
    return None if attribute is None else str(attribute["S"])


def _time(item: Item, name: str) -> float | None:
    attribute = item.get(name)
    return None if attribute is None else float(attribute["N"])


def _int(item: Item, name: str) -> int:
    return int(item.get(name, {"N": "0"})["N"])
