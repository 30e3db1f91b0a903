"""The check of long messages: whether the gateway passes on the longest there is (docs/protocol.md 3.6-6)."""

from __future__ import annotations

import contextlib
import enum
import os
from collections.abc import Callable
from typing import Final

from emissary_lib.client.endpoint import Endpoint
from emissary_lib.client.handshake import connect_with_retry
from emissary_lib.client.health import read_answer
from emissary_lib.doctor.checks import Finding, ok, skip, warning
from emissary_lib.doctor.configuration import Settings
from emissary_lib.doctor.ports import Clock
from emissary_lib.exceptions import EmissaryError, LinkClosedError, RemoteProtocolError
from emissary_lib.protocol.auth.keys import Key
from emissary_lib.protocol.constants import HEALTH_INTERVAL, MAX_FRAGMENT, MAX_MESSAGE, MAX_PAYLOAD
from emissary_lib.protocol.wire.frames import Frame, FrameType, encode
from emissary_lib.protocol.wire.health import QUESTION_BYTES
from emissary_lib.transport.base import MessageTransport
from emissary_lib.transport.close_codes import Advice, advice
from emissary_lib.transport.deadline import Deadline

#: How often the long message is sent, each time with a short one behind it that is answered, before it counts
#: as lost: one loss may be any message's, and a function that starts from cold is overtaken.
ROUNDS: Final = 4


class Passage(enum.Enum):
    """What becomes of a long message."""

    PASSES = "passes"  #: it was answered
    CLOSES = "closes"  #: the gateway closes the connection
    FAILS = "fails"  #: the gateway answers with an error of its own
    VANISHES = "vanishes"  #: nothing comes of it, while short ones are answered


def send_longest(endpoint: Endpoint, key: Key, deadline: Deadline) -> Passage:
    """Connect, find out, close. No relay starts, and the session leaves no record.

    Raises what :func:`emissary_lib.client.health.check_health` raises.

    Blocking: at most until the deadline. Any thread.
    """
    upgrade = connect_with_retry(endpoint, key, deadline)
    with contextlib.ExitStack() as stack:
        stack.callback(upgrade.transport.release)
        stack.callback(upgrade.transport.close)
        return try_longest(upgrade.transport, deadline)


def try_longest(transport: MessageTransport, deadline: Deadline) -> Passage:
    """Send one, and only if it is not answered in a second more of them, each with a short one behind it.

    Raises:
        TransportError: The connection ended for another reason than the message's length.
        EmissaryError: The bridge does not answer such questions.
        TimeoutError: Short ones were not answered before the deadline either.
    """
    trial = _Trial(transport, deadline)
    try:
        return trial.run()
    except LinkClosedError as exc:
        if advice(exc) is Advice.SHORTER:
            return Passage.CLOSES
        raise


class _Trial:
    def __init__(self, transport: MessageTransport, deadline: Deadline) -> None:
        self._transport = transport
        self._deadline = deadline
        self._errors = 0

    def run(self) -> Passage:
        long = os.urandom(QUESTION_BYTES)
        for _ in range(ROUNDS):
            self._send(long + bytes(MAX_PAYLOAD - QUESTION_BYTES))
            short, heard = os.urandom(QUESTION_BYTES), self._listen(long)
            while heard is None:
                self._send(short)
                heard = self._listen(long, short)
            if heard == long:
                return Passage.PASSES
        return Passage.FAILS if self._errors >= ROUNDS else Passage.VANISHES

    def _send(self, payload: bytes) -> None:
        message = encode(Frame(FrameType.HEALTH, generation=1, payload=payload))
        self._transport.send(message, self._deadline.remaining())

    def _listen(self, *questions: bytes) -> bytes | None:
        """Which question is answered first, within the time after which one is repeated."""
        patience = self._deadline.within(HEALTH_INTERVAL)
        while not patience.passed():
            try:
                message = self._transport.recv(patience.remaining())
            except TimeoutError:
                break
            self._errors += message.startswith(b"{")
            answer = read_answer(message)
            if answer is not None and answer.question in questions:
                return answer.question
        if self._deadline.passed():
            raise TimeoutError("neither a long message nor a short one was answered")
        return None


_LONG: Final = f"a message of {MAX_MESSAGE:,} characters"

_FACTS: Final = {
    Passage.CLOSES: f"the gateway closes the WebSocket (1009) at {_LONG}",
    Passage.FAILS: f"the gateway answers {_LONG} with an error of its own, and passes short ones on",
    Passage.VANISHES: f"{_LONG} vanishes, while short ones are answered",
}

_HINT: Final = (
    f"nothing has to be done: all messages will be short, at most {MAX_FRAGMENT:,} characters; "
    "bulk is slower, and nothing is lost"
)


def long_messages(settings: Settings, send: Callable[[Settings], Passage], clock: Clock) -> Finding:
    """Do the longest messages pass? It never fails: without them, tunnels work all the same.

    Args:
        settings: Whose gateway it is.
        send: Finds out; raises what :func:`send_longest` raises.
        clock: Ours.
    """
    began = clock.monotonic()
    try:
        passage = send(settings)
    except RemoteProtocolError as exc:
        return skip(f"the bridge does not answer the question: {exc}")
    except (EmissaryError, TimeoutError) as exc:
        cause = "no answer in time" if isinstance(exc, TimeoutError) else str(exc)
        return warning(f"could not be found out: {cause}", "try again; else see DefaultFunction's log")
    took = clock.monotonic() - began
    if passage is Passage.PASSES:
        return ok(f"{_LONG} passes", took)
    return warning(_FACTS[passage], _HINT, took)
