"""What is a TLS alert and what is not, by its record alone."""

from __future__ import annotations

import pytest

from emissary_lib.protocol.stream.tls_alerts import LONGEST, ends_in_tls_alert, only_tls_alerts

TLS13 = bytes.fromhex("1703030013") + bytes(19)
JAVA = bytes.fromhex("1703030023") + bytes(35)
TLS12 = bytes.fromhex("150303001a") + bytes(26)
PLAIN = bytes.fromhex("15030100020100")


@pytest.mark.parametrize("data", [TLS13, JAVA, TLS12, PLAIN, TLS13 + JAVA, PLAIN * 4])
def test_alerts_are_told_by_type_and_length(data: bytes) -> None:
    assert only_tls_alerts(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"QUIT\r\n",
        TLS13[:4],
        TLS13[:-1],
        TLS13 + b"x",
        b"x" + TLS13,
        bytes.fromhex("1703030014") + bytes(20),
        bytes.fromhex("1603030013") + bytes(19),
        bytes.fromhex("1702030013") + bytes(19),
        TLS13 + bytes.fromhex("1703030100"),
    ],
)
def test_everything_else_is_not_one(data: bytes) -> None:
    assert not only_tls_alerts(data)


@pytest.mark.parametrize("before", [b"", b"x", bytes(60), TLS13, b"\x15\x03"])
@pytest.mark.parametrize("last", [TLS13, JAVA, TLS12, PLAIN, TLS13 + JAVA])
def test_an_alert_at_the_end_is_found_behind_anything(before: bytes, last: bytes) -> None:
    assert len(before + last) <= LONGEST
    assert ends_in_tls_alert(before + last)


@pytest.mark.parametrize(
    "data", [b"", PLAIN[:-1], PLAIN[1:], b"QUIT\r\n", bytes(LONGEST), TLS13 + b"x", JAVA[:-1]]
)
def test_a_stream_that_ends_otherwise_may_go_on(data: bytes) -> None:
    assert not ends_in_tls_alert(data)
