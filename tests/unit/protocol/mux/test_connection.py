"""The facts of one connection."""

from __future__ import annotations

import pytest

from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.mux.answers import Position
from emissary_lib.protocol.mux.connection import Connection
from emissary_lib.protocol.mux.states import ConnectionStep
from emissary_lib.protocol.stream.tls_alerts import LONGEST
from emissary_lib.protocol.user_loss import UserLoss
from tests.helpers.mux_pair import ALERT, JAVA_ALERT, NOW, PLAIN_ALERT, TARGET

#: As many bytes of alerts as are looked at.
MOST = PLAIN_ALERT * 8 + ALERT * 3

#: What the user wrote, in these pieces; how much of it the peer's user has taken; how much is lost.
LOSSES: dict[str, tuple[list[bytes], int, int]] = {
    "nothing was written": ([], 0, 0),
    "nothing is missing": ([b"data"], 4, 0),
    "nothing is missing, of an alert either": ([b"data", ALERT], 28, 0),
    "nothing is missing, nor the end": ([ALERT], 25, 0),
    "data": ([b"data"], 0, 4),
    "an alert and nothing else": ([ALERT], 0, 0),
    "an alert behind data": ([b"data", ALERT], 4, 0),
    "an alert that was written together with data": ([b"data" + ALERT], 4, 0),
    "an alert that was written in pieces": ([b"data", ALERT[:3], b"", ALERT[3:5], ALERT[5:]], 4, 0),
    "two of Java's": ([b"data", JAVA_ALERT, JAVA_ALERT], 4, 0),
    "the second of two": ([JAVA_ALERT, JAVA_ALERT], 40, 0),
    "an alert and the last of the data before it": ([b"data", ALERT], 3, 25),
    "an alert in front of data": ([ALERT, b"data"], 0, 28),
    "data behind an alert that was taken": ([ALERT, b"data"], 24, 4),
    "the rest of an alert": ([b"data", ALERT], 9, 19),
    "an alert that is cut short": ([b"data", ALERT[:-1]], 4, 23),
    "a record that is none and begins like one": ([b"data", ALERT[:4] + b"\x14" + bytes(20)], 4, 25),
    "as many alerts as are looked at": ([b"data", MOST], 4, 0),
    "one more": ([b"data", PLAIN_ALERT + MOST], 4, LONGEST + 7),
    "one more, which was taken": ([b"data", PLAIN_ALERT + MOST], 11, 0),
    "data in front of as many": ([b"data" + MOST], 3, LONGEST + 1),
}


def test_an_end_counts_as_one() -> None:
    connection = Connection(1, TARGET)
    connection.move(ConnectionStep.ACCEPTED)
    connection.written, connection.arrived = 10, 7
    connection.unsent += b"abc"
    assert (connection.sent, connection.taken) == (7, 7)
    connection.unsent.clear()
    connection.received += b"ab"
    connection.move(ConnectionStep.END_SENT)
    assert (connection.sent, connection.taken) == (11, 5)
    connection.received.clear()
    connection.released = True
    assert connection.position(Code.OK) == Position(10, 8, Code.OK)


def test_a_cut_is_whole_only_if_each_user_has_all_that_the_other_wrote() -> None:
    connection = Connection(1, TARGET)
    connection.move(ConnectionStep.ACCEPTED)
    connection.written = connection.peer_taken = 10
    connection.arrived = connection.peer_written = 7
    connection.told_code = Code.TARGET_RESET
    seen = [connection.whole]  # ours may have gone on
    connection.move(ConnectionStep.END_SENT)
    seen.append(connection.whole)
    for name in ("peer_taken", "arrived"):
        value = getattr(connection, name)
        setattr(connection, name, value - 1)
        seen.append(connection.whole)
        setattr(connection, name, value)
    assert seen == [False, True, False, False]


def test_without_a_code_only_the_peers_end_says_that_its_stream_is_whole() -> None:
    """Symptom: what a POSITION had said to be written long before was taken for all that ever was."""
    connection = Connection(1, TARGET)
    connection.move(ConnectionStep.ACCEPTED)
    connection.move(ConnectionStep.END_SENT)
    connection.arrived = connection.peer_written = 7
    assert not connection.whole
    connection.move(ConnectionStep.END_RECEIVED)
    assert connection.whole


def test_what_was_dropped_was_not_taken_and_what_was_not_read_was_written() -> None:
    connection = Connection(1, TARGET)
    connection.written, connection.arrived = 10, 7
    connection.received += b"abc"
    connection.drop_received()
    assert not connection.received
    assert connection.position(Code.OK) == Position(10, 4, Code.OK)
    connection.loss = UserLoss(Code.TARGET_RESET, "", 5, 0, NOW)
    assert connection.position(Code.TARGET_RESET) == Position(15, 4, Code.TARGET_RESET)
    assert connection.lost == 10  # of what we were given


@pytest.mark.parametrize(("pieces", "taken", "lost"), LOSSES.values(), ids=LOSSES.keys())
def test_alerts_at_the_end_are_not_lost(pieces: list[bytes], taken: int, lost: int) -> None:
    connection = Connection(1, TARGET)
    for piece in pieces:
        connection.write(piece)
    connection.peer_taken = taken
    assert connection.lost == lost


def test_what_was_written_waits_and_its_end_is_remembered() -> None:
    connection = Connection(1, TARGET)
    connection.write(memoryview(bytes(100_000)))
    connection.write(memoryview(MOST)[:-1])
    connection.write(memoryview(MOST)[-1:])
    assert (connection.written, bytes(connection.unsent)) == (100_000 + LONGEST, bytes(100_000) + MOST)
    assert connection.tail == MOST


def test_a_cut_is_whole_without_alerts_too() -> None:
    connection = Connection(1, TARGET)
    connection.move(ConnectionStep.ACCEPTED)
    connection.write(b"data" + ALERT[:-1])
    connection.told_code, connection.peer_written = Code.TARGET_RESET, 0
    connection.peer_taken = 4 + len(ALERT) - 1
    seen = [connection.whole]  # its user may go on
    connection.write(ALERT[-1:])
    connection.peer_taken = 4
    seen.append(connection.whole)
    connection.ending = True
    seen.append(connection.whole)
    connection.move(ConnectionStep.END_SENT)
    seen.append(connection.whole)
    connection.peer_taken = 3
    seen.append(connection.whole)
    assert seen == [False, True, True, True, False]


def test_a_cut_is_not_whole_where_the_user_went_on_behind_an_alert() -> None:
    connection = Connection(1, TARGET)
    connection.move(ConnectionStep.ACCEPTED)
    connection.write(ALERT + b"data")
    connection.told_code, connection.peer_written = Code.TARGET_RESET, 0
    connection.peer_taken = connection.written
    assert not connection.whole
