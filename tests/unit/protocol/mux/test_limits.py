"""Names and numbers of shared sessions: each is docs/protocol.md's, and has to be there."""

from __future__ import annotations

import pathlib

import pytest

from emissary_lib.protocol.constants import DEFAULT_CAPACITY, MAX_PAYLOAD
from emissary_lib.protocol.errors import LocalProtocolError
from emissary_lib.protocol.mux import limits
from emissary_lib.protocol.mux.limits import Allowance, MuxLimits

TEXT = (pathlib.Path(__file__).parents[4] / "docs" / "protocol.md").read_text()
DOCUMENT = " ".join(TEXT.partition("## 11. ")[2].split())


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("MAX_CONNECTIONS", 64, "the dialer MUST take MAX_CONCURRENT_STREAMS to be **64**"),
        ("STREAM_WINDOW", 65_535, "| INITIAL_WINDOW_SIZE | 65,535, or less"),
        ("MAX_STREAM_WINDOW", 2 * DEFAULT_CAPACITY, "let a stream's window grow, up to **4,194,304** bytes"),
        ("RECEIVE_MEMORY", 33_554_432, "be **33,554,432** bytes together at most"),
        ("SEND_BUFFER", 131_072, "hold at most **131,072** bytes of a connection that are not sent"),
        ("CONNECTION_WINDOW", 8_388_608, "the connection's window by WINDOW_UPDATE to **8,388,608** bytes"),
        ("QUANTUM", 16_384, "a DATA frame of more than **16,384** bytes"),
        ("SESSION_BACKLOG", 2 * MAX_PAYLOAD, "only while fewer than **188,952** (two full messages) wait"),
        ("MAX_FRAME", 16_384, "| MAX_FRAME_SIZE | 16,384 | 16,384 |"),
        ("MAX_HEADER_BLOCK", 1_024, "one HEADERS frame of at most **1,024** bytes"),
        ("MAX_HEADER_LIST", 1_024, "| MAX_HEADER_LIST_SIZE | 1,024 | 1,024 |"),
        ("HEADER_TABLE", 4_096, "| HEADER_TABLE_SIZE | 4,096 | 4,096 | above 4,096 |"),
        ("MAX_SETTINGS_FRAMES", 16, "more than **16** SETTINGS frames that are no acknowledgement"),
        ("MAX_SETTINGS", 32, "or one of more than **32** settings"),
        ("CONTROL_FRAMES", (2_000, 500.0), "more than **2,000** frames other than DATA with bytes, plus"),
        ("RAPID_RESETS", (256, 32.0), "more than **256** requests, plus **32** a second"),
        ("GIVE_UPS", (128, 16.0), "while it has given up more than **128**, plus **16** a second."),
        ("MAX_WAITING", 98_304, "more than **98,304** bytes of frames other than DATA that wait"),
        ("BUSY_WAITING", 65_536, "no more connections while more than **65,536** bytes of"),
        ("MEMORY", 42_074_112, "at most **42,074,112** bytes for all connections together"),
    ],
)  # fmt: skip
def test_the_number_is_the_documents(name: str, value: object, sentence: str) -> None:
    assert getattr(limits, name) == value
    assert sentence in DOCUMENT


def test_the_name_is_the_documents_and_no_host() -> None:
    assert "`emissary.mux.invalid`, port 1." in DOCUMENT
    assert str(limits.SHARED_TARGET) == "emissary.mux.invalid:1"


def test_the_memory_is_the_sum_of_its_parts() -> None:
    frames = limits.MAX_WAITING + 2 * (limits.MAX_FRAME)
    assert frames == 131_072
    assert limits.RECEIVE_MEMORY + 64 * limits.SEND_BUFFER + frames == limits.MEMORY


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"connections": 0}, "0 connections; 1 to 64 are possible"),
        ({"connections": 65}, "65 connections; 1 to 64 are possible"),
        ({"window": 0}, "a window of 0 bytes; 1 to 65535 are possible"),
        ({"window": 65_536}, "a window of 65536 bytes"),
        ({"most_window": 65_534}, "a greatest window of 65534 bytes is below 65535"),
        ({"receive_memory": 64 * 65_535 - 1}, "4194239 bytes are too few for 64 windows of 65535"),
        ({"send_buffer": 0}, "a send buffer of 0 bytes holds nothing"),
    ],
)
def test_a_limit_out_of_its_range_is_refused(settings: dict[str, int], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        MuxLimits(**settings)


def test_an_allowance_is_for_some_at_once_and_then_for_so_many_a_second() -> None:
    allowance = Allowance(2, 4.0, now=10.0)
    assert [allowance.spend(10.0) for _ in range(3)] == [True, True, False]
    assert [allowance.spend(10.25) for _ in range(2)] == [True, False]
    assert [allowance.spend(99.0) for _ in range(3)] == [True, True, False]


def test_what_was_earned_stays_until_it_is_wanted() -> None:
    allowance = Allowance(1, 0.0, now=10.0)
    allowance.earn()
    assert [allowance.spend(10.0) for _ in range(3)] == [True, True, False]


def test_a_clock_that_stands_still_or_goes_back_gives_nothing() -> None:
    allowance = Allowance(1, 1.0, now=10.0)
    assert [allowance.spend(now) for now in (10.0, 9.0, 9.5)] == [True, False, False]


@pytest.mark.parametrize(("burst", "rate"), [(-1, 0.0), (0, -1.0)])
def test_no_allowance_is_negative(burst: int, rate: float) -> None:
    with pytest.raises(LocalProtocolError):
        Allowance(burst, rate, now=0.0)
