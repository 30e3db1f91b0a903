"""The relay's link: parallel posts, what becomes of refused ones, and an end that is not held up."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Iterator
from typing import cast

import pytest

from emissary_lib.protocol.constants import ARRIVAL_TIME, ARRIVAL_WAIT, MAX_FRAGMENT, REFUSED_FOR
from emissary_lib.protocol.session.session import Outgoing
from emissary_lib.protocol.wire.frames import Frame, FrameType, encode
from emissary_lib.transport.reconnecting import ReconnectingTransport
from functions.common.errors import (
    MessageTooLargeError,
    PeerBusyError,
    PeerGoneError,
    PeerRefusedError,
    PeerUnreachableError,
)
from functions.relay.link import MAX_POSTS, MAX_SHORT_POSTS, RelayLink
from tests.helpers.patience import HANG
from tests.unit.functions.relay.harness import FakePoster, FakeTransport

TO_DIALER = Outgoing(encode(Frame(FrameType.DATA, payload=b"x")), to_bridge=False)
TO_BRIDGE = Outgoing(encode(Frame(FrameType.END)), to_bridge=True)


class SlowPoster(FakePoster):
    """Answers no post before :attr:`answers` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = threading.Event()
        self.begun: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def post(self, connection_id: str, message: bytes) -> None:
        self.begun.put(message)
        assert self.answers.wait(HANG)
        super().post(connection_id, message)


class Harness:
    def __init__(self, poster: FakePoster) -> None:
        self.transport = FakeTransport()
        self.now = 0.0
        self.pauses: list[float] = []
        self.link = RelayLink(
            cast(ReconnectingTransport, self.transport),
            poster,
            "dialer=",
            clock=lambda: self.now,
            pause=self.pause,
        )
        self.hopeless: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.link.on_hopeless = self.hopeless.put
        self.refused: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.too_long: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.link.on_too_long = lambda: self.too_long.put(None)
        self.gone: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.link.on_refused = lambda: self.refused.put(None)
        self.link.on_gone = lambda: self.gone.put(None)
        self.absent: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.link.on_absent = lambda: self.absent.put(None)

    def pause(self, seconds: float) -> bool:
        """Time passes; the link is not closed."""
        self.pauses.append(seconds)
        self.now += seconds
        return False

    def arrive(self, poster: FakePoster) -> None:
        """A post is accepted."""
        self.link.send(TO_DIALER)
        poster.posted.get(timeout=HANG)

    def end(self) -> None:
        self.link.close()
        self.link.release()


@pytest.fixture
def poster() -> FakePoster:
    return FakePoster()


@pytest.fixture
def harness(poster: FakePoster) -> Iterator[Harness]:
    made = Harness(poster)
    yield made
    made.end()


def test_dialers_messages_are_posted_and_the_bridges_are_sent(harness: Harness, poster: FakePoster) -> None:
    harness.link.send(TO_DIALER)
    harness.link.send(TO_BRIDGE)
    assert poster.posted.get(timeout=HANG)[0] == "dialer="
    assert harness.transport.sent.get(timeout=HANG).type is FrameType.END


def test_no_thread_is_started_before_the_first_post(harness: Harness) -> None:
    before = threading.active_count()
    harness.link.send(TO_BRIDGE)
    assert threading.active_count() == before


def test_posts_run_beside_each_other_up_to_the_limit() -> None:
    slow = SlowPoster()
    harness = Harness(slow)
    for _ in range(2 * MAX_POSTS):
        harness.link.send(TO_DIALER)
    for _ in range(MAX_POSTS):
        slow.begun.get(timeout=HANG)
    assert slow.begun.empty()
    slow.answers.set()
    for _ in range(2 * MAX_POSTS):
        slow.posted.get(timeout=HANG)
    harness.end()


@pytest.mark.parametrize(
    "error", [PeerBusyError("429"), PeerUnreachableError("no answer"), RuntimeError("a bug")]
)
def test_refused_post_is_reported_and_the_next_one_goes_out(
    harness: Harness, poster: FakePoster, error: Exception
) -> None:
    # A thread that died of it would leave the session hanging for want of somebody to post.
    errors = [error] * (MAX_POSTS + 1)
    poster.raises = lambda: errors.pop() if errors else None
    for _ in range(MAX_POSTS + 1):
        harness.link.send(TO_DIALER)
        harness.refused.get(timeout=HANG)
    harness.link.send(TO_DIALER)
    poster.posted.get(timeout=HANG)


def test_the_first_post_that_is_forbidden_is_logged_and_no_other(
    harness: Harness, poster: FakePoster, caplog: pytest.LogCaptureFixture
) -> None:
    errors: list[Exception] = [PeerUnreachableError("status 403")] * 3 + [PeerBusyError("status 429")]
    poster.raises = lambda: errors.pop() if errors else None
    with caplog.at_level(logging.INFO, logger="emissary"):
        for _ in range(4):
            harness.link.send(TO_DIALER)
            harness.refused.get(timeout=HANG)
    (record,) = caplog.records
    assert (record.getMessage(), vars(record)["cause"]) == ("a post was not accepted", "status 403")


def test_a_message_that_is_too_large_is_hopeless_at_once(harness: Harness, poster: FakePoster) -> None:
    poster.raises = lambda: MessageTooLargeError("status 413: 50001 bytes")
    harness.link.send(TO_DIALER)
    assert harness.hopeless.get(timeout=HANG) == "status 413: 50001 bytes"
    assert harness.refused.empty(), "it would be sent again"
    assert harness.too_long.empty(), "it is short"


def test_more_short_messages_are_posted_at_once() -> None:
    slow = SlowPoster()
    harness = Harness(slow)
    harness.link.shorten()
    for _ in range(2 * MAX_SHORT_POSTS):
        harness.link.send(TO_DIALER)
    for _ in range(MAX_SHORT_POSTS):
        slow.begun.get(timeout=HANG)
    slow.answers.set()
    harness.end()


def test_a_long_message_that_is_too_large_is_sent_again_as_short_ones(
    harness: Harness, poster: FakePoster
) -> None:
    poster.raises = lambda: MessageTooLargeError("status 413")
    harness.link.send(Outgoing(b"x" * (MAX_FRAGMENT + 1), to_bridge=False))
    harness.too_long.get(timeout=HANG)
    assert harness.hopeless.empty()
    assert harness.refused.empty()


def test_refusals_that_go_on_are_hopeless_and_those_that_pass_are_not(
    harness: Harness, poster: FakePoster
) -> None:
    errors: list[Exception | None] = []
    poster.raises = lambda: errors.pop()

    def post(at: float, error: Exception | None) -> None:
        harness.now = at
        errors.append(error)
        harness.link.send(TO_DIALER)

    forbidden = PeerRefusedError("status 403")
    for at in (0.0, REFUSED_FOR - 1):
        post(at, forbidden)
        harness.refused.get(timeout=HANG)
    for other in (None, PeerBusyError("429"), PeerUnreachableError("500")):
        post(REFUSED_FOR, other)
        (harness.refused if other else poster.posted).get(timeout=HANG)
        for later in (1.0, REFUSED_FOR):
            post(REFUSED_FOR + later, forbidden)
            harness.refused.get(timeout=HANG)
        assert harness.hopeless.empty()
    post(2 * REFUSED_FOR + 1, forbidden)
    reason = harness.hopeless.get(timeout=HANG)
    assert "for 20 s every post was refused: status 403; see the relay's permissions" in reason


def test_connection_that_is_gone_is_reported(harness: Harness, poster: FakePoster) -> None:
    harness.arrive(poster)
    poster.raises = lambda: PeerGoneError("410")
    harness.link.send(TO_DIALER)
    harness.gone.get(timeout=HANG)
    assert harness.pauses == [], "it was there before"


def test_a_connection_that_does_not_exist_yet_is_waited_for(harness: Harness, poster: FakePoster) -> None:
    answers: list[Exception | None] = [PeerGoneError("410")] * 3
    poster.raises = lambda: answers.pop() if answers else None
    harness.link.send(TO_DIALER)
    poster.posted.get(timeout=HANG)
    first, _longest = ARRIVAL_WAIT
    assert harness.pauses == [first, 2 * first, 4 * first]
    assert harness.gone.empty()
    assert harness.absent.empty()


def test_a_connection_that_never_comes_is_waited_for_so_long_and_no_longer(
    harness: Harness, poster: FakePoster
) -> None:
    poster.raises = lambda: PeerGoneError("410")
    harness.link.send(TO_DIALER)
    harness.absent.get(timeout=HANG)
    _first, longest = ARRIVAL_WAIT
    assert ARRIVAL_TIME <= harness.now < ARRIVAL_TIME + longest
    assert max(harness.pauses) == longest
    waited = len(harness.pauses)
    harness.link.send(TO_DIALER)  # such as the RESET that tells of it
    harness.absent.get(timeout=HANG)
    assert len(harness.pauses) == waited
    assert harness.gone.empty()


def test_another_refusal_in_between_says_nothing_of_the_connection(
    harness: Harness, poster: FakePoster
) -> None:
    answers: list[Exception] = [PeerBusyError("429"), PeerGoneError("410"), PeerGoneError("410")]
    poster.raises = lambda: answers.pop() if answers else PeerGoneError("410")
    harness.now = 100.0
    harness.link.send(TO_DIALER)
    harness.refused.get(timeout=HANG)
    harness.now += ARRIVAL_TIME
    again = harness.now
    harness.link.send(TO_DIALER)
    harness.absent.get(timeout=HANG)
    assert harness.now >= again + ARRIVAL_TIME


def test_a_dialer_that_has_another_connection_by_now_was_there(harness: Harness, poster: FakePoster) -> None:
    harness.link.redirect("dialer=")  # its first one still
    harness.link.redirect("dialer again=")
    poster.raises = lambda: PeerGoneError("410")
    harness.link.send(TO_DIALER)
    harness.gone.get(timeout=HANG)
    assert harness.pauses == []


def test_the_end_does_not_wait_for_a_connection_that_may_yet_come() -> None:
    poster, begun = FakePoster(), threading.Event()

    def gone() -> Exception:
        begun.set()
        return PeerGoneError("410")

    poster.raises = gone
    link = RelayLink(cast(ReconnectingTransport, FakeTransport()), poster, "dialer=", clock=lambda: 0.0)
    link.send(TO_DIALER)  # and time stands still, so it would be tried for ever
    assert begun.wait(HANG)
    link.close()
    link.release()


def test_what_waits_at_the_end_is_dropped() -> None:
    # A gateway that answers slowly must not hold up the relay beyond Lambda's limit.
    slow = SlowPoster()
    harness = Harness(slow)
    for _ in range(4 * MAX_POSTS):
        harness.link.send(TO_DIALER)
    for _ in range(MAX_POSTS):
        slow.begun.get(timeout=HANG)
    harness.link.close()
    slow.answers.set()
    harness.link.release()
    assert slow.posted.qsize() == MAX_POSTS


def test_nothing_is_posted_after_close_and_no_thread_is_left(poster: FakePoster) -> None:
    before = set(threading.enumerate())
    harness = Harness(poster)
    harness.link.send(TO_DIALER)
    poster.posted.get(timeout=HANG)
    harness.link.close()
    harness.link.send(TO_DIALER)
    harness.link.release()
    assert poster.posted.empty()
    assert set(threading.enumerate()) == before
    assert harness.transport.released
