"""Conditional writes in DynamoDB's own terms, and those that both the functions and an operator do.

Source: DynamoDB API reference, UpdateItem and TransactWriteItems.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from emissary_lib.bridge import items
from emissary_lib.bridge.items import Attribute, Item, number, text
from emissary_lib.bridge.session import RECORD_TIME, TRANSITIONS, EndRecord, RecordState, RecordStep
from emissary_lib.protocol.record import Record, hidden
from emissary_lib.protocol.role import Role


class Write(Record):
    """One conditional Put or Update. Every attribute in an expression is written ``#name``."""

    kind: str
    arguments: Mapping[str, Any] = hidden()

    @classmethod
    def put(cls, item: Item, condition: str) -> Write:
        """Replace an item, under a condition."""
        return cls("Put", {"Item": item, "ConditionExpression": condition, **_names(condition)})

    @classmethod
    def update(cls, key: Item, update: str, condition: str, values: Item) -> Write:
        """Change an item, or make one, under a condition."""
        return cls(
            "Update",
            {
                "Key": key,
                "UpdateExpression": update,
                "ConditionExpression": condition,
                "ExpressionAttributeValues": values,
                **_names(update + condition),
            },
        )


def key_condition(condition: str, values: Item) -> dict[str, Any]:
    """The arguments of a Query with this condition on the keys; ``#name`` as in a :class:`Write`."""
    return {
        "KeyConditionExpression": condition,
        "ExpressionAttributeValues": values,
        **_names(condition),
    }


def _names(expressions: str) -> dict[str, Any]:
    # Always by placeholder: "state", "date" and some 570 other words are reserved.
    return {"ExpressionAttributeNames": {name: name[1:] for name in re.findall(r"#\w+", expressions)}}


def state_in(step: RecordStep) -> tuple[str, dict[str, Attribute]]:
    """A condition that the state is one from which the step is allowed, and its values."""
    states: Sequence[str] = sorted(state.value for state in TRANSITIONS[step].sources)
    values = {f":s{index}": text(state) for index, state in enumerate(states)}
    return f"#state IN ({', '.join(values)})", values


def end_session(session_id: str, ending: EndRecord, step: RecordStep) -> Write:
    """Go to ENDED from the states that ``step`` allows; forgets the opening's fragments.

    The relay's report does more: where the dialer has reported first, the relay's figures are what counts for
    the record. What clients are told, and when and by whom the session was ended, stays.
    """
    condition, values = state_in(step)
    recorded = ""
    if ending.carried is not None:
        recorded = ", #carried_dialer = :carried_dialer, #carried_relay = :carried_relay"
        dialer, relay = ending.carried
        values |= {":carried_dialer": number(dialer), ":carried_relay": number(relay)}
    if ending.connections is not None:
        recorded += ", #carried_connections = :carried_connections"
        values |= {":carried_connections": number(ending.connections)}
    if ending.reporter is Role.RELAY:
        condition += " OR #reported_by = :dialer_reported"
        values |= {":dialer_reported": text(Role.DIALER.value)}
    if step is not RecordStep.CHECK:
        recorded += ", #purge_at = :purge"
        values |= {":purge": number(int(ending.at + RECORD_TIME))}
    first = {
        "code": ":code",
        "dialer_final": ":dialer",
        "relay_final": ":relay",
        "ended_by": ":by",
        "ended_at": ":at",
        "reason": ":reason",
    }
    return Write.update(
        items.session_key(session_id),
        "SET #state = :to, #dialer_messages = :from_dialer, #relay_messages = :from_relay,"
        " #reported_by = :reporter, "
        + ", ".join(f"#{name} = if_not_exists(#{name}, {value})" for name, value in first.items())
        + f"{recorded} REMOVE #fragments, #opening_bytes",
        condition,
        values
        | {
            ":reporter": text(ending.reported_by),
            ":reason": text(ending.reason),
            ":to": text(RecordState.ENDED.value),
            ":code": number(int(ending.code)),
            ":dialer": number(ending.dialer_final),
            ":relay": number(ending.relay_final),
            ":from_dialer": number(ending.dialer_messages),
            ":from_relay": number(ending.relay_messages),
            ":by": text(ending.by),
            ":at": number(ending.at),
        },
    )
