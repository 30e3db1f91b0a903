"""The check of long messages, at a gateway of the test's making and on the test's clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from emissary_lib.doctor.checks import Finding, Status
from emissary_lib.doctor.configuration import Settings
from emissary_lib.doctor.long_messages import ROUNDS, Passage, long_messages, try_longest
from emissary_lib.exceptions import EmissaryError, LinkClosedError, RemoteProtocolError
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.constants import HEALTH_INTERVAL, MAX_MESSAGE
from emissary_lib.protocol.wire.frames import Frame, FrameType, decode, encode
from emissary_lib.protocol.wire.health import QUESTION_BYTES, Healthy, Usage
from emissary_lib.protocol.wire.payloads import Reset
from emissary_lib.transport.deadline import Deadline
from tests.helpers.clock import Clock
from tests.helpers.doctor import FakeClock, settings

ERROR = b'{"message": "Internal server error", "connectionId":"a=", "requestId":"b="}'

#: What a gateway makes of a message: seconds until the answer comes, and the answer; ``None`` for none.
Made = tuple[float, bytes] | None


def answer(text: bytes) -> bytes:
    question = decode(text).payload[:QUESTION_BYTES]
    healthy = Healthy(question, bytes(32), 2, Usage(), Usage(), (7,), "1.2.3")
    return encode(Frame(FrameType.HEALTHY, generation=1, payload=healthy.encode()))


def at_once(text: bytes) -> Made:
    return 0.01, answer(text)


def lost(text: bytes) -> Made:
    return None


def failed(text: bytes) -> Made:
    return 0.01, ERROR


@dataclass
class Gateway:
    """A transport whose other side does with long and short messages as it is told.

    Attributes:
        long, short: Given the message; may raise what ``recv`` then raises.
        sent: Lengths of all messages.
    """

    long: Callable[[bytes], Made]
    short: Callable[[bytes], Made] = at_once
    clock: Clock = field(default_factory=Clock)
    sent: list[int] = field(default_factory=list)
    coming: deque[tuple[float, bytes]] = field(default_factory=deque)
    end: EmissaryError | None = None

    def send(self, message: bytes, timeout: float | None = None) -> None:
        self.sent.append(len(message))
        try:
            made = (self.long if len(message) == MAX_MESSAGE else self.short)(message)
        except LinkClosedError as exc:
            self.end = exc
        else:
            if made is not None:
                self.coming = deque(sorted([*self.coming, (self.clock.now + made[0], made[1])]))

    def recv(self, timeout: float | None) -> bytes:
        if self.end is not None:
            raise self.end
        until = self.clock.now + (timeout or 0.0)
        if not self.coming or self.coming[0][0] > until:
            self.clock.advance_to(until)
            raise TimeoutError
        at, text = self.coming.popleft()
        self.clock.advance_to(at)
        return text

    def close(self) -> None:
        """Nothing is held."""

    abort = release = close

    def lengths(self) -> tuple[int, int]:
        """How many long messages were sent, and how many short ones."""
        long = self.sent.count(MAX_MESSAGE)
        return long, len(self.sent) - long


def tried(gateway: Gateway, seconds: float = 30.0) -> Passage:
    return try_longest(gateway, Deadline(seconds, lambda: gateway.clock.now))


def test_one_message_is_enough_where_it_is_answered() -> None:
    gateway = Gateway(at_once)
    assert tried(gateway) is Passage.PASSES
    assert gateway.sent == [MAX_MESSAGE]


def test_a_slow_answer_is_an_answer_though_short_ones_are_as_slow() -> None:
    gateway = Gateway(lambda text: (8.0, answer(text)), lambda text: (7.5, answer(text)))
    assert tried(gateway) is Passage.PASSES
    assert gateway.lengths()[0] == 1


def test_a_long_message_that_is_lost_once_is_no_sign() -> None:
    fates = iter([lost, failed, at_once])
    gateway = Gateway(lambda text: next(fates)(text))
    assert tried(gateway) is Passage.PASSES
    assert gateway.lengths() == (3, 2)


@pytest.mark.parametrize(("long", "passage"), [(lost, Passage.VANISHES), (failed, Passage.FAILS)])
def test_only_short_ones_that_pass_each_time_are_a_sign(
    long: Callable[[bytes], Made], passage: Passage
) -> None:
    gateway = Gateway(long)
    assert tried(gateway) is passage
    assert gateway.lengths() == (ROUNDS, ROUNDS)


def test_a_short_one_that_is_lost_is_repeated_and_not_counted() -> None:
    fates = iter([lost, at_once] * ROUNDS)
    gateway = Gateway(lost, lambda text: next(fates)(text))
    assert tried(gateway) is Passage.VANISHES
    assert gateway.lengths() == (ROUNDS, 2 * ROUNDS)


def test_a_connection_that_is_closed_for_a_message_s_length_is_told_from_any_other_end() -> None:
    def closing(code: int) -> Gateway:
        def close(text: bytes) -> Made:
            raise LinkClosedError(f"closed: {code}", close_code=code)

        return Gateway(close)

    assert tried(closing(1009)) is Passage.CLOSES
    with pytest.raises(LinkClosedError, match="1001"):
        tried(closing(1001))


def test_silence_says_nothing_of_length_and_ends_in_time() -> None:
    gateway = Gateway(lost, lost)
    began = gateway.clock.now
    with pytest.raises(TimeoutError):
        tried(gateway, 3.5 * HEALTH_INTERVAL)
    assert gateway.clock.now - began == pytest.approx(3.5 * HEALTH_INTERVAL)


def test_a_bridge_of_an_older_release_says_so() -> None:
    reset = Reset(Code.PROTOCOL_ERROR, "HEALTH is not for the dialer to send").encode()
    text = encode(Frame(FrameType.RESET, generation=1, payload=reset))
    with pytest.raises(RemoteProtocolError, match="older release"):
        tried(Gateway(lambda _: (0.01, text)))


# -- what is said of it -------------------------------------------------------------------------


def found(outcome: Passage | Exception) -> Finding:
    clock = FakeClock()

    def send(given: Settings) -> Passage:
        clock.pass_(0.25)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return long_messages(settings(), send, clock)


def test_messages_that_pass_are_told_with_their_time() -> None:
    finding = found(Passage.PASSES)
    assert (finding.status, finding.fact) == (Status.OK, "a message of 126,000 characters passes")
    assert finding.seconds == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("passage", "fact"),
    [
        (Passage.CLOSES, "closes the WebSocket (1009) at a message of 126,000 characters"),
        (Passage.FAILS, "with an error of its own, and passes short ones on"),
        (Passage.VANISHES, "vanishes, while short ones are answered"),
    ],
)
def test_messages_that_do_not_pass_are_a_warning_with_nothing_to_do(passage: Passage, fact: str) -> None:
    finding = found(passage)
    assert finding.status is Status.WARNING
    assert fact in finding.fact
    assert finding.hint.startswith("nothing has to be done: all messages will be short")


@pytest.mark.parametrize(
    ("error", "says"), [(TimeoutError(), "no answer in time"), (LinkClosedError("closed: 1001"), "1001")]
)
def test_what_could_not_be_found_out_is_a_warning(error: Exception, says: str) -> None:
    finding = found(error)
    assert finding.status is Status.WARNING
    assert says in finding.fact


def test_a_bridge_that_knows_no_such_question_is_let_be() -> None:
    assert found(RemoteProtocolError("knows no such question")).status is Status.SKIPPED
