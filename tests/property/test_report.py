"""The audit record: whatever clients report, it has one line, and nothing that cannot be."""

from __future__ import annotations

import logging
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from emissary_lib.bridge.report import REPORTABLE
from emissary_lib.protocol.codes import Code, code_of
from emissary_lib.protocol.role import Role
from emissary_lib.protocol.wire.frames import Frame, FrameType
from functions.common import audit, logs, metrics
from functions.common.metrics import Metric
from tests.helpers.events import DIALER, RELAY
from tests.unit.functions.bridge import Bridge

#: By hand: 2,000 messages a second and side, each full.
MESSAGES, BYTES = 2000, 2000 * 94_476

FIGURE = st.one_of(st.integers(0, 1000), st.integers(0, 2**64 - 1))
COUNT = st.one_of(st.integers(0, 1000), st.integers(0, 2**32 - 1))
ENDS = st.tuples(
    st.sampled_from([(Role.DIALER, DIALER), (Role.RELAY, RELAY)]),
    st.one_of(st.sampled_from(Code), st.integers(0, 0xFFFF)),
    st.tuples(FIGURE, FIGURE, COUNT, COUNT),
    st.floats(0, 900),
)


class Lines(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record.__dict__)


@given(st.lists(ENDS, min_size=1, max_size=4))
def test_whatever_clients_report_the_record_has_nothing_that_cannot_be(reports: list[Any]) -> None:
    bridge, lines, counted = Bridge(), Lines(), Lines()
    bridge.open()
    begun = bridge.clock.now
    handlers = ((logging.getLogger(logs.NAME), lines), (logging.getLogger(metrics.NAME), counted))
    levels = [logger.level for logger, _ in handlers]
    for logger, handler in handlers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    try:
        for number, ((_, sender), code, told, later) in enumerate(reports):
            bridge.clock.now += later
            payload = int(code).to_bytes(2, "big") + b"".join(
                each.to_bytes(size, "big") for each, size in zip(told, (8, 8, 4, 4), strict=True)
            )
            bridge.send(sender, Frame(FrameType.END, generation=2, payload=payload), request_id=str(number))
    finally:
        for (logger, handler), level in zip(handlers, levels, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
    (record,) = [each for each in lines.records if each["msg"] == "session ended"]
    (figures,) = [each["figures"] for each in counted.records if Metric.SESSION_ENDED in each["figures"]]
    (role, _), code, _, age = reports[0]
    assert record["reported_by"] == role.value
    allowed = code_of(code) in REPORTABLE[role]
    assert record["code"] == (code_of(code) if allowed else Code.PROTOCOL_ERROR).name
    sizes = [record["dialer_bytes"], record["relay_bytes"]]
    counts = [record["dialer_messages"], record["relay_messages"]]
    if record["implausible"]:
        assert [*sizes, *counts] == [None] * 4
        assert Metric.SESSION_BYTES not in figures
    else:
        assert max(sizes) <= BYTES * (age + 1)
        assert max(counts) <= MESSAGES * (age + 1)
        assert figures[Metric.SESSION_BYTES] == sum(sizes)
    most = audit.estimated_cost(
        seconds=age,
        dialer_bytes=int(BYTES * (age + 1)),
        relay_bytes=int(BYTES * (age + 1)),
        slots=0,
        nat=True,
    )
    assert record["estimated_cost_usd"] <= most + 1e-9
    assert bridge.session.ending is not None
    assert (bridge.session.ending.at, bridge.session.ending.by) == (begun + age, "0")
    by_relay = any(role is Role.RELAY for (role, _), *_ in reports)
    assert bridge.session.ending.reporter is (Role.RELAY if by_relay else Role.DIALER)
