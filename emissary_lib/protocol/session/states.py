"""The session's states, as a table. Everything that changes a session's state is here.

The table knows nothing of roles: dialer and relay walk through the same states.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final, TypeVar

from emissary_lib.protocol.errors import LocalProtocolError

_State = TypeVar("_State", bound=enum.Enum)
_Step = TypeVar("_Step", bound=enum.Enum)


class State(enum.Enum):
    """Where a session stands."""

    #: The SOCKS5 exchange is under way; the dialer's bytes travel as OPENING.
    OPENING = "opening"
    #: Both directions carry the user's bytes; each may have ended on its own.
    OPEN = "open"
    #: Over for the user; END is repeated until ENDED comes.
    ENDING = "ending"
    #: Nothing more is sent or expected.
    ENDED = "ended"


class Step(enum.Enum):
    """What moves a session on."""

    ESTABLISHED = "established"
    STREAMS_COMPLETE = "streams complete"
    ABORTED_HERE = "aborted here"
    ABORTED_BY_PEER = "aborted by peer"
    TOLD_ENDED = "told ended"
    GAVE_UP = "gave up"


TRANSITIONS: Final[dict[tuple[State, Step], State]] = {
    (State.OPENING, Step.ESTABLISHED): State.OPEN,
    (State.OPENING, Step.STREAMS_COMPLETE): State.ENDING,
    (State.OPENING, Step.ABORTED_HERE): State.ENDING,
    (State.OPENING, Step.ABORTED_BY_PEER): State.ENDING,
    (State.OPENING, Step.TOLD_ENDED): State.ENDED,
    (State.OPENING, Step.GAVE_UP): State.ENDED,
    (State.OPEN, Step.STREAMS_COMPLETE): State.ENDING,
    (State.OPEN, Step.ABORTED_HERE): State.ENDING,
    (State.OPEN, Step.ABORTED_BY_PEER): State.ENDING,
    (State.OPEN, Step.TOLD_ENDED): State.ENDED,
    (State.OPEN, Step.GAVE_UP): State.ENDED,
    (State.ENDING, Step.TOLD_ENDED): State.ENDED,
    (State.ENDING, Step.GAVE_UP): State.ENDED,
}


def step(state: State, what: Step) -> State:
    """A session's state after ``what`` happened in ``state``; raises as :func:`follow`."""
    return follow(TRANSITIONS, state, what)


def follow(transitions: Mapping[tuple[_State, _Step], _State], state: _State, what: _Step) -> _State:
    """The state after ``what`` happened in ``state``, by any table of such.

    Raises:
        LocalProtocolError: It cannot happen there: a bug on this side.
    """
    try:
        return transitions[state, what]
    except KeyError:
        raise LocalProtocolError(f"{what.value!r} cannot happen in state {state.value!r}") from None
