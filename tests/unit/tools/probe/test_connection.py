"""What the probe's client sends as single frames, and what it makes of whatever comes back."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator

import pytest

from tests.helpers.patience import HANG
from tests.helpers.ws_server import BINARY, CONT, PING, PONG, TEXT, Peer, RawFrame, WsServer, refusal
from tools.probe.connection import SUBPROTOCOL, Connection, Event, ProbeError, Tally, UpgradeRefusedError


@contextlib.contextmanager
def connected(handler: Callable[[Peer], None], tally: Tally | None = None) -> Iterator[Connection]:
    with WsServer(handler, subprotocol=SUBPROTOCOL) as server:
        with Connection(server.url, tally or Tally(), patience=HANG) as connection:
            yield connection


def received(*frames: tuple[int, bytes, bool]) -> Event:
    """What is made of these frames."""

    def send(peer: Peer) -> None:
        for opcode, payload, fin in frames:
            peer.send_frame(opcode, payload, fin=fin)
        peer.read_message()

    with connected(send) as connection:
        return connection.receive()


def test_a_message_goes_out_in_frames_of_the_size_that_is_asked_for() -> None:
    seen: list[RawFrame] = []

    def read(peer: Peer) -> None:
        seen.extend(peer.read_frame() for _ in range(3))
        peer.send_text("read")

    tally = Tally()
    with connected(read, tally) as connection:
        connection.send(b"x" * 70_000, frame=31_000)
        assert connection.receive().data == b"read"
    assert [(each.opcode, len(each.payload), each.fin) for each in seen] == [
        (TEXT, 31_000, False), (CONT, 31_000, False), (CONT, 8_000, True),
    ]  # fmt: skip
    assert (tally.connects, tally.units_in, tally.units_out, tally.bytes_out) == (1, 3, 1, 4)


def test_a_message_of_several_frames_is_one_and_says_how_many_they_were() -> None:
    event = received((TEXT, b"a", False), (PING, b"", True), (CONT, b"b", True))
    assert (event.kind, event.data, event.frames) == ("text", b"ab", 2)


def test_bytes_that_are_no_utf_8_are_shown_as_what_they_came() -> None:
    assert received((BINARY, b"\xff\xfe", True)).kind == "binary"
    assert received((TEXT, b"\xff\xfe", True)) == Event("text", b"\xff\xfe", frames=1)


def test_a_ping_is_answered_and_is_no_message() -> None:
    pongs: list[RawFrame] = []

    def ping(peer: Peer) -> None:
        peer.send_frame(PING, b"there?")
        pongs.append(peer.read_frame())
        peer.send_text("after")

    with connected(ping) as connection:
        assert connection.receive().data == b"after"
    assert [(each.opcode, each.payload) for each in pongs] == [(PONG, b"there?")]


def test_a_close_frame_tells_its_code_and_its_reason() -> None:
    with connected(lambda peer: peer.send_close(1009, "Message too long")) as connection:
        event = connection.receive()
    assert event.over
    assert (event.code, str(event)) == (1009, "closed 1009 'Message too long'")


def test_an_end_without_a_close_frame_is_a_loss() -> None:
    with connected(lambda peer: None) as connection:
        event = connection.receive()
    assert event.over
    assert event.kind == "lost"


def test_an_end_while_it_is_being_sent_to_is_told_when_it_receives() -> None:
    with connected(lambda peer: peer.send_close(1008)) as connection:
        for _ in range(100):
            connection.send(b"x" * 100_000, frame=31_000)
        assert connection.receive().over


def test_the_gateways_ids_are_not_shown() -> None:
    event = Event("text", b'{"message": "no", "connectionId":"abc=", "requestId":"def="}')
    assert event.text == '{"message": "no", "connectionId":"...", "requestId":"..."}'


def test_a_refused_upgrade_has_its_status() -> None:
    tally = Tally()
    with WsServer(answer=lambda _request: refusal(409)) as server:
        with pytest.raises(UpgradeRefusedError) as caught:
            Connection(server.url, tally, patience=HANG)
    assert (caught.value.status, tally.connects, tally.refused) == (409, 0, 1)


def test_an_answer_is_found_among_what_else_comes() -> None:
    def answer(peer: Peer) -> None:
        asked = json.loads(peer.read_message() or "")
        peer.send_text("000000...")
        peer.send_text(json.dumps({"answer": asked["op"], "id": asked["id"], "size": 7}))
        peer.read_message()

    others: list[Event] = []
    with connected(answer) as connection:
        found = connection.answer_to(connection.ask("size"), others=others.append)
    assert found["size"] == 7
    assert [event.data for event in others] == [b"000000..."]


def test_what_comes_instead_of_an_answer_is_named() -> None:
    def fail(peer: Peer) -> None:
        peer.read_message()
        peer.send_text('{"message": "Forbidden"}')
        peer.read_message()

    with connected(fail) as connection:
        with pytest.raises(ProbeError, match=r"instead of an answer: .*Forbidden"):
            connection.call("size")
