"""The session's states: every state against every step."""

from __future__ import annotations

import pytest

from emissary_lib.protocol.errors import LocalProtocolError
from emissary_lib.protocol.session.states import TRANSITIONS, State, Step, step

#: What each state leads to; a step that is not named cannot happen there.
EXPECTED = {
    State.OPENING: {
        Step.ESTABLISHED: State.OPEN,
        Step.STREAMS_COMPLETE: State.ENDING,
        Step.ABORTED_HERE: State.ENDING,
        Step.ABORTED_BY_PEER: State.ENDING,
        Step.TOLD_ENDED: State.ENDED,
        Step.GAVE_UP: State.ENDED,
    },
    State.OPEN: {
        Step.STREAMS_COMPLETE: State.ENDING,
        Step.ABORTED_HERE: State.ENDING,
        Step.ABORTED_BY_PEER: State.ENDING,
        Step.TOLD_ENDED: State.ENDED,
        Step.GAVE_UP: State.ENDED,
    },
    State.ENDING: {Step.TOLD_ENDED: State.ENDED, Step.GAVE_UP: State.ENDED},
    State.ENDED: {},
}


@pytest.mark.parametrize("what", Step, ids=lambda what: what.value)
@pytest.mark.parametrize("state", State, ids=lambda state: state.value)
def test_every_step_in_every_state(state: State, what: Step) -> None:
    following = EXPECTED[state].get(what)
    if following is None:
        text = f"'{what.value}' cannot happen in state '{state.value}'"
        with pytest.raises(LocalProtocolError, match=text):
            step(state, what)
    else:
        assert step(state, what) is following


def test_the_table_holds_nothing_else() -> None:
    assert len(TRANSITIONS) == sum(map(len, EXPECTED.values())) == 13
