"""The facts of one connection."""

from __future__ import annotations

from emissary_lib.protocol.mux.answers import Position
from emissary_lib.protocol.mux.connection import Connection
from emissary_lib.protocol.mux.states import ConnectionStep
from tests.helpers.mux_pair import TARGET


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
    assert connection.position == Position(10, 8, 0)  # type: ignore[arg-type]  # a code is a number


def test_a_cut_is_whole_only_if_each_user_has_all_that_the_other_wrote() -> None:
    connection = Connection(1, TARGET)
    connection.move(ConnectionStep.ACCEPTED)
    connection.written = connection.peer_taken = 10
    connection.arrived = connection.peer_written = 7
    seen = [connection.whole]  # ours may have gone on
    connection.move(ConnectionStep.END_SENT)
    seen.append(connection.whole)
    for name in ("peer_taken", "arrived"):
        value = getattr(connection, name)
        setattr(connection, name, value - 1)
        seen.append(connection.whole)
        setattr(connection, name, value)
    assert seen == [False, True, False, False]
    untold = Connection(3, TARGET)
    untold.move(ConnectionStep.ACCEPTED)
    untold.move(ConnectionStep.END_SENT)
    assert not untold.whole
