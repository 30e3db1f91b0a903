"""The opening in every cut and order: the relay is launched once all of it is there, and not before."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence

import pytest

from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.wire.frames import FrameType, decode
from emissary_local import LocalCloud
from tests.helpers.local_cloud import (
    LINUX_ONLY,
    audit_record,
    audit_records,
    eventually,
    log_lines,
    relay_returned,
)
from tests.helpers.raw_dialer import RawDialer
from tests.helpers.servers import Server, greeter

pytestmark = LINUX_ONLY

#: What the SOCKS5 reply begins with when all went well (RFC 1928 section 6).
SUCCESS = b"\x05\x00\x00\x01\x7f\x00\x00\x01"

Piece = tuple[int, bytes]


@pytest.fixture
def raw(cloud: LocalCloud) -> Iterator[RawDialer]:
    with RawDialer(cloud.url, cloud.key) as made:
        yield made


@pytest.fixture
def target() -> Iterator[tuple[str, int]]:
    with Server(greeter(b"hello")) as address:
        yield address


def cut(opening: bytes, *places: int) -> list[Piece]:
    """Cut the opening into pieces at these places, each with its offset."""
    edges = [0, *places, len(opening)]
    return [(start, opening[start:end]) for start, end in itertools.pairwise(edges)]


def three(opening: bytes) -> list[Piece]:
    """Greeting, username and password, CONNECT: as a SOCKS5 client has them."""
    greeting = 2 + opening[1]
    username = opening[greeting + 1]
    password = opening[greeting + 2 + username]
    return cut(opening, greeting, greeting + 3 + username + password)


def send(raw: RawDialer, pieces: Sequence[Piece]) -> None:
    for offset, data in pieces:
        raw.send(FrameType.OPENING, data, offset=offset)


def assert_opened(raw: RawDialer, cloud: LocalCloud, opening: bytes) -> None:
    """The relay reports success with the whole server's stream, and was launched once."""
    parameters, data = raw.opened()
    assert parameters.code is Code.OK
    before, found, _after = data.partition(SUCCESS)
    assert found, data
    assert before.endswith(b"\x05\x02\x01\x00")  # method 02, authenticated
    assert [line["message"] for line in log_lines(cloud, raw.session)].count("relay launched") == 1
    assert raw.end(sent=len(opening)).code is Code.DIALER_RESET
    assert relay_returned(cloud, raw.session) == "DIALER_RESET"


def test_one_message(raw: RawDialer, cloud: LocalCloud, target: tuple[str, int]) -> None:
    opening = raw.opening(target)
    raw.send(FrameType.OPENING, opening)
    assert_opened(raw, cloud, opening)
    # For an opening that succeeds the bridge itself, whose generation is 1, posts nothing.
    assert {decode(text).generation for text in raw.others} <= {2}


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_three_messages_in_any_order(
    raw: RawDialer, cloud: LocalCloud, target: tuple[str, int], order: tuple[int, ...]
) -> None:
    opening = raw.opening(target)
    pieces = three(opening)
    send(raw, [pieces[number] for number in order])
    assert_opened(raw, cloud, opening)


def test_three_messages_each_after_the_answer_to_the_last(
    raw: RawDialer, cloud: LocalCloud, target: tuple[str, int]
) -> None:
    opening = raw.opening(target)
    greeting, credentials, connect = three(opening)
    send(raw, [greeting])
    answer = raw.receive(FrameType.DATA)
    assert (answer.offset, answer.ack, answer.generation) == (0, len(greeting[1]), 1)
    assert answer.payload.endswith(b"\x05\x02")
    send(raw, [credentials])
    answer = raw.receive(FrameType.DATA)
    assert answer.ack == connect[0]
    assert answer.payload.endswith(b"\x05\x02\x01\x00")
    send(raw, [connect])
    assert_opened(raw, cloud, opening)


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_any_message_lost_and_sent_again(
    raw: RawDialer, cloud: LocalCloud, target: tuple[str, int], lost: int
) -> None:
    opening = raw.opening(target)
    pieces = three(opening)
    before = cloud.meter.invocations.get("DefaultFunction", 0)
    send(raw, [piece for number, piece in enumerate(pieces) if number != lost])
    handled(cloud, before + 2)
    assert not [line for line in log_lines(cloud, raw.session) if line["message"] == "relay launched"]
    send(raw, [pieces[lost]])
    assert_opened(raw, cloud, opening)


@pytest.mark.parametrize("doubled", [0, 1, 2])
def test_any_message_doubled(
    raw: RawDialer, cloud: LocalCloud, target: tuple[str, int], doubled: int
) -> None:
    opening = raw.opening(target)
    pieces = three(opening)
    send(raw, [*pieces[: doubled + 1], *pieces[doubled:]])
    assert_opened(raw, cloud, opening)


def test_sent_again_in_another_cut(raw: RawDialer, cloud: LocalCloud, target: tuple[str, int]) -> None:
    opening = raw.opening(target)
    send(raw, [*cut(opening, 50)[1:], *cut(opening, 2, 30, 60)])
    assert_opened(raw, cloud, opening)


def test_a_byte_at_a_time_in_random_order(raw: RawDialer, cloud: LocalCloud, target: tuple[str, int]) -> None:
    opening = raw.opening(target)
    pieces = cut(opening, *range(1, len(opening)))
    random.Random(7).shuffle(pieces)
    # Four at a time: each message is an invocation of its own, and a hundred at once are a hundred processes.
    for start in range(0, len(pieces), 4):
        before = cloud.meter.invocations.get("DefaultFunction", 0)
        batch = pieces[start : start + 4]
        send(raw, batch)
        handled(cloud, before + len(batch))
    assert_opened(raw, cloud, opening)


def test_early_bytes_behind_the_opening_reach_the_target(
    raw: RawDialer, cloud: LocalCloud, target: tuple[str, int]
) -> None:
    # Allowed only once the banner was checked; the bridge does not care when the bytes were sent.
    opening = raw.opening(target)
    raw.send(FrameType.OPENING, opening + b"early")
    _parameters, data = raw.opened()
    stream = bytearray(data)
    raw.send(FrameType.ACK, offset=len(opening) + 5, ack=len(stream), generation=2)
    while not stream.endswith(b"hello" + b"early"):
        frame = raw.receive(FrameType.DATA, FrameType.OPENED)
        if frame.type is FrameType.DATA and frame.offset <= len(stream):
            stream += frame.payload[len(stream) - frame.offset :]
            raw.send(FrameType.ACK, offset=len(opening) + 5, ack=len(stream), generation=2)
    raw.end(sent=len(opening) + 5)
    assert relay_returned(cloud, raw.session) == "DIALER_RESET"


def test_password_signed_with_another_key_is_refused_without_a_relay(
    raw: RawDialer, cloud: LocalCloud, target: tuple[str, int]
) -> None:
    wrong = type(cloud.key)(cloud.key.key_id, bytes(32))
    raw.send(FrameType.OPENING, raw.opening(target, key=wrong))
    for _ in range(2):  # and again, to whoever asks again
        assert raw.receive(FrameType.DATA).payload.endswith(b"\x05\x02\x01\x01")
        raw.send(FrameType.OPENING, b"\x05")
    assert not [line for line in log_lines(cloud, raw.session) if line["message"] == "relay launched"]
    assert raw.end(Code.AUTHENTICATION_FAILED).code is Code.AUTHENTICATION_FAILED


def test_what_is_no_socks5_is_reset(raw: RawDialer) -> None:
    raw.send(FrameType.OPENING, b"GET / HTTP/1.1\r\n")
    assert raw.receive(FrameType.RESET).payload[:2] == int(Code.PROTOCOL_ERROR).to_bytes(2, "big")


def test_end_is_answered_each_time_and_recorded_once(
    raw: RawDialer, cloud: LocalCloud, target: tuple[str, int]
) -> None:
    raw.send(FrameType.OPENING, raw.opening(target))
    raw.opened()
    first = raw.end(Code.DIALER_RESET, sent=100, received=120)
    again = raw.end(Code.KILLED, sent=1, received=1)
    assert first == again
    assert (first.code, first.dialer, first.relay) == (Code.DIALER_RESET, 100, 120)
    # The item is ENDED: whatever comes is answered with that, and begins nothing.
    raw.send(FrameType.OPENING, raw.opening(target))
    assert raw.receive(FrameType.ENDED).payload[:2] == int(Code.DIALER_RESET).to_bytes(2, "big")
    assert relay_returned(cloud, raw.session) == "DIALER_RESET"
    record = audit_record(cloud, raw.session)
    assert (record["code"], record["dialer_bytes"], record["relay_bytes"]) == ("DIALER_RESET", 100, 120)
    assert len(audit_records(cloud, raw.session)) == 1


@pytest.mark.parametrize("kind", [FrameType.RESUMED, FrameType.ENDED, FrameType.OPENED])
def test_dialer_cannot_speak_with_anothers_voice(
    raw: RawDialer, cloud: LocalCloud, target: tuple[str, int], kind: FrameType
) -> None:
    raw.send(FrameType.OPENING, raw.opening(target))
    raw.opened()
    raw.send(kind, bytes(32), generation=2)
    assert raw.receive(FrameType.RESET).payload[:2] == int(Code.PROTOCOL_ERROR).to_bytes(2, "big")
    raw.end()
    assert relay_returned(cloud, raw.session) == "DIALER_RESET"  # it never heard of the forgery


def handled(cloud: LocalCloud, count: int) -> None:
    """Wait until ``$default`` has handled ``count`` messages since the cloud's start."""
    eventually(
        lambda: cloud.meter.invocations.get("DefaultFunction", 0) >= count or None, "the handling of messages"
    )
