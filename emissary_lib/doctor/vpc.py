"""The rungs behind the bridge: allow-list, relay, name, target, round trip, greeting, a warm start."""

from __future__ import annotations

import ipaddress
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from emissary_lib.doctor.configuration import Settings
from emissary_lib.doctor.hints import NO_RELAY_REMEDY, OTHER_PROBLEM, TARGET_PROBLEMS, broke
from emissary_lib.doctor.ports import Clock, Way
from emissary_lib.doctor.report import Finding, failed, ok, skipped, warning
from emissary_lib.doctor.service_probes import Greeting
from emissary_lib.exceptions import (
    AuthenticationError,
    DialError,
    EmissaryError,
    NameNotFoundError,
    SessionLimitError,
    TargetNotAllowedError,
    TransportError,
)
from emissary_lib.exit_status import Exit
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.targets.allow_list import Target

#: How often the round trip is measured; the median counts.
SAMPLES: Final = 5

#: Longest wait for a greeting, in seconds: servers that mean to speak do so at once.
GREETING_TIMEOUT: Final = 10.0

#: Longest wait for a relay's sign of life once the target is silent, in seconds.
PING_TIMEOUT: Final = 5.0

#: A relay that takes no longer than this is warm, in seconds; nothing is gained by a second look.
WARM: Final = 0.3

#: A first start was cold if a second one takes less than this share of it.
COLD_SHARE: Final = 0.6

#: Ends of a dial that say that no relay came, and not how the target fares.
_NO_RELAY: Final = frozenset({Code.OPENING_EXPIRED, Code.RELAY_GONE, Code.RELAY_DEADLINE, Code.LINK_DEAD})


@dataclass
class Vpc:
    """The rungs behind the bridge, for one target.

    Attributes:
        settings: Whose VPC it is.
        target: What is to be reached.
        greeting: How it is expected to greet; ``None`` if that is not known.
        make_way: Begins a session: one for the target, as a dial would, and one more for the warm start.
        clock: Ours.
    """

    settings: Settings
    target: Target
    greeting: Greeting | None
    make_way: Callable[[], Way]
    clock: Clock
    _way: Way | None = field(default=None, init=False)
    _problem: EmissaryError | TimeoutError | None = field(default=None, init=False)
    _took: float = field(default=0.0, init=False)

    def _dial(self) -> EmissaryError | TimeoutError | None:
        """Dial, once; what became of it is told by several rungs.

        In a session of its own, whose opening is one message as every dial's is: the bridge's rungs have
        theirs answered in parts.
        """
        if self._way is None:
            self._way = self.make_way()
            began = self.clock.monotonic()
            try:
                self._way.enter(self.settings.timeout)
                began = self.clock.monotonic()
                self._way.dial(self.target, self.settings.timeout)
            except (EmissaryError, TimeoutError) as exc:
                self._problem = exc
            self._took = self.clock.monotonic() - began
        return self._problem

    @property
    def _open(self) -> Way:
        assert self._way is not None, "the rung of the allow-list comes first"
        return self._way

    def close(self) -> None:
        """End the session. Idempotent."""
        if self._way is not None:
            self._way.close()

    def allowed(self) -> Finding:
        """Is the target on the allow-list?"""
        problem = self._dial()
        if not isinstance(problem, TargetNotAllowedError):
            known = problem is None or self._open.relay_spoke
            return ok(f"{self.target} is on the allow-list" if known else f"nobody refuses {self.target}")
        if self._open.relay_spoke:
            return failed(
                Exit.NOT_ALLOWED,
                f"{self.target.host} is on the allow-list, but not the address it has in the VPC",
                "loopback, link-local and metadata addresses must be listed literally; check its DNS record",
            )
        return failed(
            Exit.NOT_ALLOWED,
            f"{self.target} is not on the allow-list",
            "add it to the stack's parameter AllowedTargets, by the very name or address that is dialled",
        )

    def relay(self) -> Finding:
        """Does a relay start, and dial back?"""
        problem, took = self._dial(), self._took
        if problem is None or self._open.relay_spoke:
            start = "warm" if took <= WARM else "cold or far away: see the rung warm"
            return ok(f"a relay started and reported ({start})", took)
        errors = self._open.gateway_errors
        said = f"; the gateway reported {errors} errors" if errors else ""
        if isinstance(problem, AuthenticationError):
            return failed(
                Exit.KEY, str(problem), "deploy again, so that all functions have the same keys", took
            )
        if isinstance(problem, SessionLimitError):
            remedy = (
                "end sessions (emissary sessions), or raise MaxSessions, RelayConcurrency, MaxSessionsPerKey"
            )
            return failed(Exit.LIMIT, str(problem), remedy, took)
        if isinstance(problem, DialError) and problem.code not in _NO_RELAY:
            return failed(
                Exit.RELAY, f"{problem}{said}", "see the log groups of DefaultFunction and RelayFunction"
            )
        if isinstance(problem, TimeoutError):
            fact = f"no relay reported within {self.settings.timeout:g} s{said}"
        else:
            fact = f"no relay reported: {problem}{said}"
        return failed(
            Exit.RELAY,
            fact,
            NO_RELAY_REMEDY,
            took,
        )

    def name(self) -> Finding:
        """Does the target's name resolve in the VPC?"""
        if _is_address(self.target.host):
            return skipped(f"{self.target.host} is an address")
        if isinstance(self._dial(), NameNotFoundError):
            return failed(
                Exit.NAME_NOT_FOUND,
                f"{self.target.host} does not resolve inside the VPC",
                "check its spelling, the private hosted zone's VPCs, and the stack's parameter DnsServers",
            )
        return ok(f"{self.target.host} resolves in the VPC")

    def tcp(self) -> Finding:
        """Does the target take connections?"""
        problem = self._dial()
        if problem is None:
            return ok(f"the relay is connected to {self.target}")
        status, fact, remedy = TARGET_PROBLEMS.get(type(problem), OTHER_PROBLEM)
        return failed(status, f"{self.target} {fact}", remedy)

    def round_trip(self) -> Finding:
        """How long do a message there and its answer take?"""
        samples = []
        try:
            for _ in range(SAMPLES):
                began = self.clock.monotonic()
                self._open.ping(self.settings.timeout)
                samples.append(self.clock.monotonic() - began)
        except (EmissaryError, TimeoutError) as exc:
            return broke("no answer in time" if isinstance(exc, TimeoutError) else str(exc))
        errors = self._open.gateway_errors
        typical = statistics.median(samples)
        fact = f"to the relay and back, median of {SAMPLES}; slowest {max(samples) * 1000:.0f} ms"
        if errors:
            remedy = "$default is throttled or fails now and then: see its log and the account's concurrency"
            return warning(f"{fact}; the gateway reported {errors} errors", remedy, typical)
        return ok(fact, typical)

    def greet(self) -> Finding:
        """Does what answers there speak as it should?"""
        if self.greeting is None:
            return skipped(f"port {self.target.port} tells no protocol: say --greet, or --greet none")
        patience = min(GREETING_TIMEOUT, self.settings.timeout)
        began = self.clock.monotonic()
        try:
            found = self._open.converse(self.greeting.request, self.greeting.judge, patience)
        except TimeoutError:
            if (cause := self._broken_tunnel()) is not None:  # a relay that does not answer explains it too
                return broke(cause)
            fact = f"connected, but silent for {patience:g} s: {self.greeting.title} would have answered"
            return failed(Exit.GREETING, fact, self.greeting.silence)
        except TransportError as exc:
            return broke(str(exc))
        except EmissaryError as exc:
            fact = f"the connection broke before {self.greeting.title} greeted: {exc}"
            return failed(Exit.GREETING, fact, self.greeting.silence)
        took = self.clock.monotonic() - began
        return Finding(found.status, found.fact, found.remedy, took, found.exit)

    def _broken_tunnel(self) -> str | None:
        """Why the tunnel itself is broken; ``None`` if the relay answers."""
        try:
            self._open.ping(min(PING_TIMEOUT, self.settings.timeout))
        except TimeoutError:
            return "no answer in time"
        except EmissaryError as exc:
            return str(exc)
        return None

    def warm(self) -> Finding:
        """Was that a cold start? A second relay tells."""
        first = self._took
        self._open.close()  # its relay is free for the second one
        if first <= WARM:
            return skipped("the first start was a warm one")
        way = self.make_way()
        try:
            way.enter(self.settings.timeout)
            began = self.clock.monotonic()
            way.dial(self.target, self.settings.timeout)
            took = self.clock.monotonic() - began
        except (EmissaryError, TimeoutError) as exc:
            return warning(f"a second dial failed: {exc}", "try again: something fails now and then")
        finally:
            way.close()
        if took < first * COLD_SHARE:
            return ok(f"the first start was cold; a warm one saves {(first - took) * 1000:.0f} ms", took)
        return ok("a second start takes as long: the way is long, or each start is a cold one", took)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True
