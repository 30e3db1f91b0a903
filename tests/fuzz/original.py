"""What a server says that accepts no subprotocol: bytes, which are the original's transport or are not."""

from __future__ import annotations

from emissary_lib.protocol.auth.keys import Key
from emissary_lib.protocol.errors import RemoteProtocolError
from emissary_lib.protocol.original.frames import Event, FrameReader, Payload
from emissary_lib.protocol.original.opening import OriginalOpening
from emissary_lib.protocol.original.stream import MAX_MESSAGE, OriginalStream, StreamState, Times
from emissary_lib.protocol.stream.counters import Counters
from emissary_lib.protocol.targets.allow_list import Target

KEY = Key(7, bytes(range(32)))


def original_server(data: bytes) -> None:
    """A server that says anything from its banner on; the first byte says how the others are cut."""
    size = (data[0] if data else 0) + 1
    pieces = [data[start : start + size] for start in range(1, len(data), size)]
    opening = OriginalOpening(KEY, "Sun, 22 Nov 2026 12:00:00 GMT", Target("db.internal", 5432))
    reader, early = FrameReader(), list[Event]()
    try:
        while pieces and not opening.done:
            for event in reader.receive(pieces.pop(0)):
                if opening.accepted:
                    early.append(event)
                elif isinstance(event, Payload) and not opening.refused:
                    opening.receive(event)
                    assert len(opening.data_to_send()) < 1024
                    assert not opening.rest or opening.done
    except RemoteProtocolError:
        return
    if opening.accepted:
        _converse(
            OriginalStream(reader, early, Counters(), now=0.0, draw_mask=lambda: bytes(4), times=Times()),
            pieces,
        )


def _converse(stream: OriginalStream, pieces: list[bytes]) -> None:
    """The user writes, reads half, and ends; some time passes."""
    for count, piece in enumerate(pieces):
        now = count * 2.0
        if stream.send_room:
            stream.send_data(b"row", now)
        stream.receive(piece, now)
        with stream.data_to_send() as out:
            written = len(out) // 2
        stream.data_sent(written)
        with stream.peek() as came:
            read = len(came) // 2
        stream.consume(read, now)
        if count == 20 and stream.state is StreamState.OPEN:
            stream.send_eof(now)
        stream.handle_timeout(now)
        with stream.data_to_send() as out, stream.peek() as came:
            assert len(out) < 2 * MAX_MESSAGE
            assert len(came) < 2 * MAX_MESSAGE
        assert stream.confirmed <= stream.sent
        assert (stream.end is None) is (stream.state is not StreamState.ENDED)
