"""The audit record: one log line when a session ends, and its figures.

It says who (key id), what (target), when, how much, why it ended, and about what it cost. It is written by
the invocation whose conditional write ended the session, so there is one for each session; if that invocation
is killed between its write and this line, the record is lost, and the item has the same facts until it is
purged, a week after the end (``emissary sessions list``). What an operator has ended is recorded by the
``$disconnect`` of the last of its connections, once as well: the item notes by which.

Its figures are those of the END that ended the session, and it names whose: ``dialer``, ``relay``, or
``bridge`` where no client has reported any. Which of two ENDs comes first is chance, or a dialer's choice,
and a line cannot be taken back. So the item takes the relay's figures also if they come second, and the relay
has a line of its own in the log with what it has counted. Figures that cannot be are left out.

A session that both clients left without a word stays OPEN until somebody reads it past its time, which may be
never: then the warning "both connections gone" stands for the record, and has its ``code`` and times. Where
API Gateway does not deliver ``$disconnect`` either, the log has the line "relay launched", with who and to
where, and the item stays as long as that of any other session (``LaunchRecord.purge_at``).
"""

from __future__ import annotations

import math
from typing import Final

from emissary_lib.bridge.report import Figures, figures
from emissary_lib.bridge.session import SessionRecord
from emissary_lib.prices import HERE, LAMBDA_LOG_BYTES, Prices
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.constants import HEADER_CHARS, MAX_MESSAGE, MAX_PAYLOAD
from functions.common import logs, metrics
from functions.common.metrics import Metric

#: Bytes of one metered message unit. Source: API Gateway pricing, "metered in 32 KB increments".
_UNIT_BYTES: Final = 32 * 1024
_UNITS_OF_FULL_MESSAGE: Final = math.ceil(MAX_MESSAGE / _UNIT_BYTES)

#: Memory of the relay and of ``$default``, in GB, as in template.yaml, and a usual run of the latter.
_RELAY_MEMORY: Final = 0.25
_DEFAULT_MEMORY: Final = 0.5
_DEFAULT_SECONDS: Final = 0.025

#: What each session has beside its bytes, when all goes well: invocations ($connect twice, the opening, END,
#: $disconnect twice; the relay's comes on top); message units (opening, END, ENDED twice, and both upgrades,
#: of which AWS does not say that they are none).
_FIXED_INVOCATIONS: Final = 6

#: Those of which Lambda writes lines of its own: $connect, $disconnect, the relay. For $default it is told
#: not to (SystemLogLevel in template.yaml).
_LOGGED_INVOCATIONS: Final = 5
_FIXED_UNITS: Final = 6

#: Bytes that the functions log of it, figures for CloudWatch among them; Lambda's own come on top. Measured:
#: a test runs a session and looks.
LOG_BYTES: Final = 4_000

#: Write units likewise, of items below 1 KB: the dialer's and the relay's $connect (two items each, and
#: transactions count double), the opening, its launch, the end, $disconnect twice. Read units: one where a
#: message finds its session by its connection (the opening, END, $disconnect twice), and of an environment of
#: $default two for the first data that it copies, and one a minute for how long messages may be.
_FIXED_WRITES: Final = 4 + 4 + 1 + 1 + 1 + 2
_FIXED_READS: Final = 4 + 2 + 1

#: What limits add: the launch becomes a transaction, behind which the session is read again; each slot is
#: taken in it, leased for less at the end and given back when the relay has left, each by itself, and is
#: chosen by reading all of its limit at once (a unit for some 40 that are held).
_LIMITED_WRITES: Final = 1
_LIMITED_READS: Final = 1
_SLOT_WRITES: Final = 2 + 1 + 1
_SLOT_READS: Final = 1


def _units(length: int) -> int:
    """Metered units of so many stream bytes in full messages and one for the rest."""
    full, rest = divmod(length, MAX_PAYLOAD)
    characters = HEADER_CHARS + rest * 4 / 3
    return full * _UNITS_OF_FULL_MESSAGE + (math.ceil(characters / _UNIT_BYTES) if rest else 0)


def _characters(length: int) -> int:
    """Characters on the wire of so many stream bytes: base64 makes four of three."""
    full, rest = divmod(length, MAX_PAYLOAD)
    return full * MAX_MESSAGE + (HEADER_CHARS + math.ceil(rest * 4 / 3) if rest else 0)


def write_units(slots: int) -> int:
    """Write units of a session that takes so many slots."""
    return _FIXED_WRITES + (_LIMITED_WRITES + slots * _SLOT_WRITES if slots else 0)


def read_units(slots: int) -> int:
    """Read units of a session that takes so many slots."""
    return _FIXED_READS + (_LIMITED_READS + slots * _SLOT_READS if slots else 0)


def estimated_cost(
    *,
    seconds: float,
    dialer_bytes: int,
    relay_bytes: int,
    slots: int,
    nat: bool,
    prices: Prices = HERE,
) -> float:
    """About what a session costs on AWS, in dollars; a lower bound for sessions of many small messages.

    The dialer is taken to be outside AWS, and none of the account's free 100 GB a month to be left. What the
    gateway sends to the relay, in the same region, is taken to cost nothing: AWS does not say.

    Args:
        seconds: Life of the session.
        dialer_bytes: Bytes of the dialer's stream. Each message is metered twice, in and out, and is one
            invocation of ``$default``.
        relay_bytes: Bytes of the relay's stream; each message is metered once.
        slots: How many the session has taken, one of each limit there is.
        nat: Whether the relay's way to the gateway is a NAT gateway, through which both streams go.
        prices: What everything costs; else for functions that run on what this one runs on (template
            parameter ``Architecture``).
    """
    run_time = _RELAY_MEMORY * seconds
    invocations = _FIXED_INVOCATIONS + math.ceil(dialer_bytes / MAX_PAYLOAD)
    units = _FIXED_UNITS + 2 * _units(dialer_bytes) + _units(relay_bytes)
    to_dialer, to_relay = _characters(relay_bytes), _characters(dialer_bytes)
    return (
        units * prices.websocket_message
        + 2 * seconds / 60 * prices.websocket_connection_minute
        + (run_time + _DEFAULT_MEMORY * _DEFAULT_SECONDS * invocations) * prices.lambda_gb_second
        + (invocations + 1) * prices.lambda_request
        + write_units(slots) * prices.dynamodb_write_unit
        + read_units(slots) * prices.dynamodb_read_unit
        + to_dialer * prices.internet_byte
        + (to_dialer + to_relay if nat else 0) * prices.nat_byte
        + (LOG_BYTES + _LOGGED_INVOCATIONS * LAMBDA_LOG_BYTES) * prices.log_byte
    )


def record(session: SessionRecord, *, nat: bool) -> None:
    """Write the record of a session that has just been ended.

    Args:
        session: As it was ended.
        nat: Whether to reckon with a NAT gateway.
    """
    ending = session.ending
    if ending is None:
        return
    seconds = max(0.0, ending.at - session.started)
    told = figures(session)
    believed = told or Figures(0, 0, 0, 0)
    cost = estimated_cost(
        seconds=seconds,
        dialer_bytes=believed.dialer_bytes,
        relay_bytes=believed.relay_bytes,
        slots=len(session.slots),
        nat=nat,
    )
    logs.info(
        "session ended",
        session=session.id,
        key_id=session.key_id,
        source=session.source,
        target=session.target,
        started=session.started,
        ended=ending.at,
        duration_s=round(seconds, 3),
        dialer_bytes=told.dialer_bytes if told else None,
        relay_bytes=told.relay_bytes if told else None,
        dialer_messages=told.dialer_messages if told else None,
        relay_messages=told.relay_messages if told else None,
        reported_by=ending.reported_by,
        implausible=told is None,
        connections=session.connections_opened,
        code=ending.code.name,
        reason=ending.text,
        dialer_epoch=session.dialer.epoch,
        relay_epoch=session.relay.epoch,
        estimated_cost_usd=round(cost, 9),
        prices=f"{HERE.region} {HERE.as_of} {HERE.architecture} {'NAT' if nat else 'IPv6'}",
    )
    counted = {
        Metric.SESSION_ENDED: 1,
        Metric.SESSION_FAILED: int(ending.code is not Code.OK),
        Metric.SESSION_SECONDS: seconds,
    }
    if told:
        counted[Metric.SESSION_BYTES] = told.dialer_bytes + told.relay_bytes
    metrics.put(counted)
