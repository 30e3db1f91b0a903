"""Every number is docs/protocol.md's: the sentence that holds it is quoted, and has to be there."""

from __future__ import annotations

import pathlib

import pytest

from emissary_lib.bridge.session import CONNECT_TIME
from emissary_lib.protocol import constants
from emissary_lib.protocol.wire.frames import COPIED, Flag

TEXT = (pathlib.Path(__file__).parents[3] / "docs" / "protocol.md").read_text()
DOCUMENT = " ".join(TEXT.split())


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("SUBPROTOCOL", "emissary.v2", "offer and get the subprotocol `emissary.v2`"),
        ("VERSION", 2, "high 3 bits: version, **2**"),
        ("MAX_MESSAGE", 126_000, "at most **126,000** characters"),
        ("MAX_FRAGMENT", 31_000, "fragments of at most **31,000** characters"),
        ("HEADER_BYTES", 24, "a 24-byte header"),
        ("HEADER_CHARS", 32, "The header is exactly the first 32 characters"),
        ("MAX_PAYLOAD", 94_476, "a payload of at most **94,476** bytes"),
        ("DEFAULT_CAPACITY", 2_097_152, "*C* is **2 MiB** unless configured"),
        ("INITIAL_WINDOW", 65_536, "Until it has heard a window, a sender assumes 65,536"),
        ("MAX_SACK_RANGES", 32, "zero to 32 SACK ranges"),
        ("ACK_DELAY", 0.2, "otherwise **200 ms** after the first unacknowledged byte"),
        ("ACK_PROGRESS", 0.5, "send ACK **500 ms** after the window's"),
        ("ACK_REPEAT", 0.05, "no sooner than **50 ms** after the acknowledgement before"),
        ("RTO_INITIAL", 3.0, "initial 3 s, at least 1 s, at most 60 s"),
        ("RTO_MIN", 1.0, "initial 3 s, at least 1 s, at most 60 s"),
        ("RTO_MAX", 60.0, "initial 3 s, at least 1 s, at most 60 s"),
        ("DIALER_FLIGHT", (4, 16), "a cap of 4 at the start, one more per acknowledged message up to 16"),
        ("RELAY_FLIGHT", (8, 32), "(for a relay: 8, up to 32)"),
        (
            "SMALL_FRAMES",
            2,
            "send a frame that is not full at once while fewer than two such frames are in flight",
        ),
        ("ERROR_PAUSE", (0.1, 5.0), "a pause of 100 ms, doubled up to 5 s"),
        ("PING_INTERVAL", 240.0, "heard nothing for **240 s**"),
        ("PING_WHEN_UNACKED", 30.0, "data has been outstanding for **30 s** without a word"),
        ("PONG_DEADLINE", 20.0, "if nothing is heard within **20 s**"),
        ("PING_REPEAT", 5.0, "PING is repeated every **5 s**"),
        ("GRACE", 60.0, "reconnect for at most **grace** (60 s unless configured;"),
        ("BACK_OFF", (0.1, 2.0), "a wait that doubles from 0.1 s to 2 s"),
        (
            "STEADY_AFTER",
            5.0,
            "a reconnection ends within **5 s** of its 101",
        ),
        ("RESUME_INTERVALS", (1.0, 2.0, 4.0, 5.0), "at once and then after 1, 2, 4, 5, 5, ... s"),
        ("LEAST_PATIENCE", 7.0, "what is left carries over, at least **7 s**"),
        ("PROBE_WHEN_UNACKED", 20.0, "for **20 s** while data is outstanding"),
        ("PROBE_DEADLINE", 10.0, "Without it in **10 s** the relay's own WebSocket is dead"),
        ("GOAWAY_BEFORE", (30.0, 10.0), "send GOAWAY **30 s** and **10 s** before its end"),
        ("CONNECTIONS_INTERVAL", 10.0, "at once, but not within **10 s** of the one before"),
        ("REFUSED_FOR", 20.0, "once its posts have met nothing else for **20 s**"),
        ("END_INTERVAL", 1.0, "repeat RESET and END every second until ENDED"),
        ("LINGER", 5.0, "has what had arrived for it, or **5 s** later"),
        ("MAX_MESSAGE_RATE", 2000, "more than **2,000** messages a second of either client"),
        ("END_DEADLINE", 5.0, "for at most **5 s**"),
        ("CLOCK_SKEW", 900.0, "date more than 15 minutes off"),
        ("MAX_OPENING_BYTES", 4096, "below offset **4,096**"),
        ("MAX_OPENING_TOTAL", 8192, "count at most **8,192** bytes together"),
        ("FRAGMENT_OVERHEAD", 8, "each **8** more than it has"),
        ("MAX_SHOWN_BYTES", 3072, "the first bytes of its stream, at most **3,072**"),
        (
            "ARRIVAL_WAIT",
            (0.02, 0.5),
            "after **20 ms** at first, twice as long each further time, at most **500 ms**",
        ),
        ("ARRIVAL_TIME", 5.0, "have met nothing but 410 for **5 s** in that time"),
        ("OPENING_TIME", 60.0, "when the opening expires: **60 s** after the upgrade's answer"),
        ("ATTEMPT_TIMEOUT", 10.0, "One attempt takes at most **10 s**"),
        ("END_MARGIN", 5.0, "At its end (5 s before Lambda's limit"),
        ("RELAUNCH_AFTER", 5.0, "unclaimed for more than **5 s**"),
        ("HEALTH_INTERVAL", 1.0, "repeat the question every **1 s** until it is answered"),
        ("CLAIM_DEADLINE", 10.0, "more than **10 s** after it began to claim"),
    ],
)
def test_the_number_is_the_documents(name: str, value: object, sentence: str) -> None:
    assert getattr(constants, name) == value
    assert sentence in DOCUMENT


def test_an_orphaned_relays_time_is_the_sum_that_the_document_names() -> None:
    assert "PING interval + PONG deadline + grace MUST end the session with `DIALER_GONE`: 320 s" in DOCUMENT
    assert constants.PING_INTERVAL + constants.PONG_DEADLINE + constants.GRACE == 320


def test_a_relays_first_connection_is_kept_as_long_as_connect_may_take_to_answer() -> None:
    generations = DOCUMENT.partition("### 5.1 ")[2].partition("### 5.2 ")[0]
    assert "NOT forget a relay's connection of epoch 1 within **20 s** of its claim" in generations
    assert "Within **20 s** of a launch at the door (3.7)" in generations
    assert CONNECT_TIME == 20


def test_ping_is_repeated_within_the_deadline() -> None:
    assert constants.PING_REPEAT * 4 == constants.PONG_DEADLINE


def test_the_flags_are_the_documents() -> None:
    assert "`0x01` FIN, `0x02` IGNORABLE, `0x04` ACK-NOW" in DOCUMENT
    assert [flag.value for flag in (Flag.FIN, Flag.IGNORABLE, Flag.ACK_NOW)] == [1, 2, 4]


def test_the_copied_types_are_the_documents() -> None:
    assert "`$default` MUST copy types 1 to 5, unchanged" in DOCUMENT
    assert sorted(COPIED) == [1, 2, 3, 4, 5]
