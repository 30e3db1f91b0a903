"""One stream under any order, cut, repetition and loss of its frames."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from emissary_lib.protocol.constants import INITIAL_WINDOW
from emissary_lib.protocol.errors import FlowControlError
from emissary_lib.protocol.stream.receiver import StreamReceiver
from emissary_lib.protocol.stream.sender import StreamSender

SPANS = st.lists(st.tuples(st.integers(0, 300), st.integers(0, 80)), max_size=60)


def cut(content: bytes, spans: list[tuple[int, int]]) -> list[tuple[int, bytes]]:
    return [(at, content[at : at + size]) for at, size in spans if at <= len(content)]


@given(size=st.integers(0, 300), spans=SPANS, reads=st.lists(st.integers(0, 50), max_size=60))
def test_the_receiver_is_a_picture_of_what_arrived(
    size: int, spans: list[tuple[int, int]], reads: list[int]
) -> None:
    """Against a model that keeps a set of positions."""
    content = random.Random(size).randbytes(size)
    stream = StreamReceiver(INITIAL_WINDOW)
    arrived: set[int] = set()
    read = bytearray()
    for index, (at, piece) in enumerate(cut(content, spans)):
        fresh = set(range(at, at + len(piece))) - arrived
        fin = at + len(piece) == size and index % 2 == 0
        known = stream.final_size is not None
        assert stream.receive(at, piece, fin) == (bool(fresh) or (fin and not known))
        arrived |= fresh
        solid = next(position for position in range(size + 1) if position not in arrived)
        assert (stream.received, stream.arrived) == (solid, len(arrived))
        assert stream.complete == (stream.final_size is not None and solid == size)
        assert stream.gap == (len(arrived) > solid)
        sacked = {position for low, high in stream.sack_ranges() for position in range(low, high)}
        assert sacked - {size} == {position for position in arrived if position > solid}
        view = stream.peek()[: reads[index] if index < len(reads) else 0]
        read += view
        stream.consume(len(view))
        assert stream.buffered == len(arrived) - len(read)
        assert stream.edge == len(read) + INITIAL_WINDOW
    while view := stream.peek():
        read += view
        stream.consume(len(view))
    assert read == content[: stream.received]


@given(offset=st.integers(0, 2**64), size=st.integers(0, 70_000), fin=st.booleans())
def test_the_receiver_takes_nothing_beyond_its_edge(offset: int, size: int, fin: bool) -> None:
    stream = StreamReceiver(INITIAL_WINDOW)
    try:
        stream.receive(offset, bytes(size), fin)
    except FlowControlError:
        assert offset + size > INITIAL_WINDOW
    else:
        assert offset + size <= INITIAL_WINDOW
    assert stream.buffered <= INITIAL_WINDOW


@given(
    seed=st.integers(0, 2**32),
    writes=st.lists(st.integers(0, 5_000), max_size=30),
    limit=st.sampled_from([1, 7, 100, 1_000, 94_476]),
)
def test_sender_and_receiver_agree_whatever_is_lost(seed: int, writes: list[int], limit: int) -> None:
    """The sender's account of what flies, of what it holds and of credit is checked at every step."""
    chance = random.Random(seed)
    capacity = INITIAL_WINDOW
    sender, receiver = StreamSender(capacity), StreamReceiver(capacity)
    content, read = bytearray(), bytearray()
    for size in writes:
        piece = chance.randbytes(size if limit > 7 else size % 50)
        content += piece[: sender.write(piece)]
    sender.write_eof()
    flying: dict[int, tuple[bytes, bool]] = {}
    now = 0.0
    while not sender.complete:
        now += 1.0
        while sender.in_flight < 8 and (segment := sender.next_segment(limit, now)) is not None:
            assert segment.offset + len(segment.data) <= receiver.edge
            flying[segment.offset] = segment.data, segment.fin
        assert sender.in_flight <= 8
        for offset in chance.sample(sorted(flying), len(flying)):
            data, fin = flying.pop(offset)
            if chance.random() < 0.7:
                receiver.receive(offset, data, fin)
        while chance.random() < 0.8 and (view := receiver.peek()[:3_000]):
            read += view
            receiver.consume(len(view))
        if chance.random() < 0.8:
            sender.receive_ack(receiver.ack, receiver.sack_ranges(), now)
            sender.receive_window(receiver.ack, receiver.window)
        assert sender.buffered == len(content) - min(sender.acked, len(content))
        if chance.random() < 0.5:
            sender.mark_lost(now, 0.0)
        elif chance.random() < 0.5:
            sender.mark_oldest_lost()
        assert 0 <= sender.small_in_flight <= sender.in_flight
    while view := receiver.peek():
        read += view
        receiver.consume(len(view))
    assert bytes(read) == bytes(content)
    assert (sender.in_flight, sender.small_in_flight, sender.buffered, sender.waiting) == (0, 0, 0, False)
    assert receiver.drained
