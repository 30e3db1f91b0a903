"""The facts of one connection."""

from __future__ import annotations

from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.mux.answers import Position
from emissary_lib.protocol.mux.connection import Connection
from emissary_lib.protocol.mux.states import ConnectionStep
from emissary_lib.protocol.user_loss import UserLoss
from tests.helpers.mux_pair import NOW, TARGET


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
