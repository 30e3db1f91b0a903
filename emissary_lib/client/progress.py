"""What a dial waits for: said on a logger while it lasts, and in the error of one that ran out of time."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from emissary_lib.exceptions import DialTimeoutError
from emissary_lib.protocol.targets.allow_list import Target
from emissary_lib.transport.deadline import Deadline
from emissary_lib.transport.watch import Step, Watch
from emissary_lib.transport.websocket import OriginalServerError

#: INFO: a first dial starts Lambda functions from cold, which is no warning to a job that nobody watches. The
#: commands show it on a terminal.
logger = logging.getLogger("emissary_lib.dial")

#: Seconds after which a dial says what it waits for; then after twice as many, and so on.
FIRST_WORD: Final = 2.0

#: Seconds below which a step is not worth a mention.
_NOTHING: Final = 0.05

_COLD: Final = "A first dial starts Lambda functions from cold: allow 20 s; else see "
_ON_THE_WAY: Final = "See what is on the way to the gateway: a firewall, or a proxy that has to be used"

#: Each step in words, and what to do about one that takes too long.
_WORDS: Final[Mapping[Step, tuple[str, str]]] = {
    "loopback": ("a loopback connection on this machine", "See what keeps this machine busy"),
    "name": ("the gateway's name to be looked up", "See this machine's name servers"),
    "TCP": ("a TCP connection to the gateway", _ON_THE_WAY),
    "proxy": ("the proxy to reach the gateway", "See the proxy that the environment names (emissary config)"),
    "TLS": ("the TLS handshake with the gateway", _ON_THE_WAY),
    "upgrade": ("the gateway's answer to the connection", _COLD + "the log of $connect"),
    "relay": ("the relay to start and to reach the target", _COLD + "the relay's log"),
    "banner": (
        "the banner of the original Emissary, since the server does not accept emissary.v2",
        "Check the URL: something else may answer there",
    ),
    "server": (
        "the original Emissary's server to reach the target",
        "See the target and its firewall, and the server's log",
    ),
    "target": ("the relay to reach the target", "See the target and its firewall, and the relay's log"),
    "pause": ("the next attempt", "See the logs of bridge and relay"),
}


class _CountsErrors(Protocol):
    """A session's counters, or another dial."""

    @property
    def gateway_errors(self) -> int:
        """Messages that the gateway did not pass on."""


class Progress(Watch):
    """One dial, from its first attempt to its end; construct it when the dial begins.

    Records on the logger ``emissary_lib.dial`` have ``dial``, which is the same for all of one dial, and
    ``over``, whether it is the last of them: so that whoever shows them knows what to take away again; and
    ``shorter``, other words for the same where there is less room, the longest first.

    Args:
        target: What is dialled.
        clock: A monotonic clock.
        sleep: Waits so many seconds.

    Attributes:
        target: What is dialled.
    """

    def __init__(
        self,
        target: Target,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.target = target
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._began = self._entered = clock()
        self._due = FIRST_WORD  # seconds after the beginning
        self._step: Step = "upgrade"
        self._spent: dict[str, float] = {}
        self._attempts = 0
        self._has_spoken = False
        self._followed: list[tuple[_CountsErrors, int]] = []

    def begin_attempt(self) -> None:
        """The gateway is asked, for the first time or again."""
        self._attempts += 1
        self.enter("upgrade")

    def enter(self, step: Step) -> None:
        """From now on this is waited for."""
        with self._lock:
            self._close_step()
            self._step = step

    def follow(self, whose: _CountsErrors, *, since_now: bool = False) -> None:
        """Count the messages that the gateway does not pass on for a session, or for a dial that starts it.

        Args:
            whose: The session's counters, or the other dial; a second time makes no difference.
            since_now: Leave out those before.
        """
        if all(whose is not each for each, _ in self._followed):
            self._followed.append((whose, whose.gateway_errors if since_now else 0))

    @property
    def gateway_errors(self) -> int:
        """Messages that the gateway did not pass on, in all attempts together."""
        return sum(each.gateway_errors - before for each, before in self._followed)

    def timings(self) -> dict[str, float]:
        """Seconds by step, in the order of a dial; all attempts together."""
        with self._lock:
            self._close_step()
            return {step: self._spent[step] for step in _WORDS if step in self._spent}

    def look(self, seconds: float | None) -> float | None:
        """As :meth:`Watch.look`: until it is time to say again what is waited for."""
        passed = self._clock() - self._began
        if passed >= self._due:
            self._due = 2 * passed
            text = f"still dialling {self.target} after {passed:.1f} s: waiting for {self._waited_for}"
            if errors := self.gateway_errors:
                text += f"; {_not_passed_on(errors)}"
            self._say(text, f"dialling {self.target} for {passed:.0f} s ({self._step})")
        left = self._began + self._due - self._clock()
        return left if seconds is None else min(seconds, left)

    def wait(self, event: threading.Event, deadline: Deadline) -> None:
        """As :meth:`Watch.wait`, and say meanwhile what is waited for."""
        while not event.is_set() and not deadline.passed():
            event.wait(deadline.cap(self.look(None)))

    def pause(self, seconds: float, deadline: Deadline) -> None:
        """As :meth:`Watch.pause`, and say meanwhile what is waited for."""
        self.enter("pause")
        until = self._clock() + seconds
        while (left := until - self._clock()) > 0 and not deadline.passed():
            wait = deadline.cap(self.look(left))
            self._sleep(left if wait is None else wait)

    def end(self, failure: BaseException | None = None) -> None:
        """The dial is over; whoever was told of it is told that too."""
        if self._has_spoken and not isinstance(failure, OriginalServerError):  # it goes on with that
            outcome = "dialled" if failure is None else f"failed ({type(failure).__name__}) to dial"
            self._say(f"{outcome} {self.target} after {self._clock() - self._began:.1f} s", over=True)

    def timeout_error(self, deadline: Deadline) -> DialTimeoutError:
        """What a dial raises whose deadline passed."""
        return timeout_error(
            self.target,
            deadline,
            self._step,
            timings=self.timings(),
            attempts=self._attempts,
            gateway_errors=self.gateway_errors,
        )

    def _close_step(self) -> None:
        assert self._lock.locked()
        now = self._clock()
        self._spent[self._step] = self._spent.get(self._step, 0.0) + now - self._entered
        self._entered = now

    @property
    def _waited_for(self) -> str:
        return _WORDS[self._step][0]

    def _say(self, text: str, *shorter: str, over: bool = False) -> None:
        self._has_spoken = True
        details = _format_details(self.timings(), self._attempts)
        more = {"dial": id(self), "over": over, "shorter": (text, *shorter)}
        logger.info("%s%s", text, details, extra=more)


def timeout_error(
    target: Target,
    deadline: Deadline,
    step: Step,
    *,
    timings: Mapping[str, float] | None = None,
    attempts: int = 1,
    gateway_errors: int = 0,
) -> DialTimeoutError:
    """What a dial raises whose deadline passed while it was waiting for ``step``."""
    timeout = deadline.timeout or 0.0
    waited_for, advice = _WORDS[step]
    if gateway_errors:
        said = _not_passed_on(gateway_errors)
        advice = said[0].upper() + said[1:]
    spent: dict[str, float] = {step: timeout} if timings is None else dict(timings)
    return DialTimeoutError(
        f"dialling {target} took longer than {timeout:g} s; it was waiting for {waited_for}"
        f"{_format_details(spent, attempts)}. {advice}",
        target=target,
        timeout=timeout,
        step=waited_for,
        timings=spent,
        attempts=attempts,
    )


def _not_passed_on(messages: int) -> str:
    return f"the gateway did not pass on {messages} of its messages: see the log of $default"


def _format_details(timings: Mapping[str, float], attempts: int) -> str:
    parts = [f"{step} {seconds:.1f} s" for step, seconds in timings.items() if seconds >= _NOTHING]
    if attempts > 1:
        parts.append(f"{_ordinal(attempts)} attempt")
    return f" ({', '.join(parts)})" if parts else ""


def _ordinal(number: int) -> str:
    teen = 10 <= number % 100 < 20
    return f"{number}{'th' if teen else {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th')}"
