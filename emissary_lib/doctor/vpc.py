"""The checks behind the bridge: allow-list, relay, name, target, round trip, service, a warm start."""

from __future__ import annotations

import ipaddress
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from emissary_lib.doctor.checks import Finding, failure, ok, skip, warning
from emissary_lib.doctor.configuration import Settings
from emissary_lib.doctor.ports import Clock, Probe
from emissary_lib.doctor.service_probes import ServiceProbe
from emissary_lib.exceptions import (
    SHARE_RELAYS,
    AuthenticationError,
    DialError,
    EmissaryError,
    NameNotFoundError,
    SessionLimitError,
    TargetNotAllowedError,
    TransportError,
)
from emissary_lib.exit_status import Exit, exit_status
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.targets.allow_list import Target

#: How often the round trip is measured; the median counts.
SAMPLES: Final = 5

#: Longest wait for the server's answer, in seconds: servers that mean to speak do so at once.
SERVICE_TIMEOUT: Final = 10.0

#: Longest wait for the relay's answer to a PING once the target is silent, in seconds.
PING_TIMEOUT: Final = 5.0

#: A relay that takes no longer than this is warm, in seconds; nothing is gained by a second look.
WARM: Final = 0.3

#: A first start was cold if a second one takes less than this share of it.
COLD_SHARE: Final = 0.6

#: Ends of a dial that say that no relay came, and not how the target fares.
_NO_RELAY: Final = frozenset({Code.OPENING_EXPIRED, Code.RELAY_GONE, Code.RELAY_DEADLINE, Code.LINK_DEAD})

_NO_RELAY_HINT: Final = (
    "see RelayFunction's log: no line means that it did not start (concurrency, or inactive after two idle "
    "weeks: try again in a minute), 'could not dial back' that the VPC lets nothing out to the gateway (NAT "
    "or egress-only gateway, port 443, private DNS of an execute-api endpoint)"
)


@dataclass
class Vpc:
    """The checks behind the bridge, for one target.

    Attributes:
        settings: Whose VPC it is.
        target: What is to be reached.
        service_probe: What it is expected to speak; ``None`` if that is not known.
        make_probe: Makes a session that has not begun: one for the dial, one for the warm start.
        clock: Ours.
    """

    settings: Settings
    target: Target
    service_probe: ServiceProbe | None
    make_probe: Callable[[], Probe]
    clock: Clock
    _probe: Probe | None = field(default=None, init=False)
    _problem: EmissaryError | TimeoutError | None = field(default=None, init=False)
    _took: float = field(default=0.0, init=False)

    def _dial(self) -> EmissaryError | TimeoutError | None:
        """Dial, once; several checks report what became of it.

        In a session of its own, whose opening is one message as every dial's is: the checks at the bridge
        have theirs answered in parts.
        """
        if self._probe is None:
            self._probe = self.make_probe()
            began = self.clock.monotonic()
            try:
                self._probe.connect_with_retry(self.settings.timeout)
                began = self.clock.monotonic()
                self._probe.dial(self.target, self.settings.timeout)
            except (EmissaryError, TimeoutError) as exc:
                self._problem = exc
            self._took = self.clock.monotonic() - began
        return self._problem

    @property
    def _open(self) -> Probe:
        assert self._probe is not None, "the check allowed comes first"
        return self._probe

    def close(self) -> None:
        """End the session. Idempotent."""
        if self._probe is not None:
            self._probe.close()

    def allowed(self) -> Finding:
        """Is the target on the allow-list?"""
        problem = self._dial()
        if isinstance(problem, DialError) and problem.code is Code.CONFIGURATION_ERROR:
            return failure(exit_status(problem), problem.reason, problem.hint)
        if not isinstance(problem, TargetNotAllowedError):
            known = problem is None or self._open.relay_spoke
            return ok(f"{self.target} is on the allow-list" if known else f"{self.target} was not refused")
        if self._open.relay_spoke:
            return failure(
                Exit.NOT_ALLOWED,
                f"{self.target.host} is on the allow-list, but not the address it has in the VPC",
                "loopback, link-local and metadata addresses must be listed literally; check its DNS record",
            )
        return failure(Exit.NOT_ALLOWED, f"{self.target} is not on the allow-list", problem.hint)

    def relay(self) -> Finding:
        """Does a relay start, and dial back?"""
        problem, took = self._dial(), self._took
        if problem is None or self._open.relay_spoke:
            start = "warm" if took <= WARM else "cold or far away: see the check warm"
            return ok(f"a relay started and reported ({start})", took)
        errors = self._open.gateway_errors
        said = f"; the gateway reported {errors} errors" if errors else ""
        if isinstance(problem, AuthenticationError):
            return failure(
                Exit.KEY, str(problem), "deploy again, so that all functions have the same keys", took
            )
        if isinstance(problem, SessionLimitError):
            hint = (
                f"end sessions (emissary sessions), {SHARE_RELAYS}, or raise MaxSessions, RelayConcurrency, "
                "MaxSessionsPerKey"
            )
            return failure(Exit.LIMIT, str(problem), hint, took)
        if isinstance(problem, DialError) and problem.code not in _NO_RELAY:
            return failure(
                Exit.RELAY, f"{problem}{said}", "see the log groups of DefaultFunction and RelayFunction"
            )
        if isinstance(problem, TimeoutError):
            fact = f"no relay reported within {self.settings.timeout:g} s{said}"
        else:
            fact = f"no relay reported: {problem}{said}"
        return failure(
            Exit.RELAY,
            fact,
            _NO_RELAY_HINT,
            took,
        )

    def name(self) -> Finding:
        """Does the target's name resolve in the VPC?"""
        if _is_address(self.target.host):
            return skip(f"{self.target.host} is an address")
        problem = self._dial()
        if isinstance(problem, NameNotFoundError):
            fact = f"{self.target.host} does not resolve inside the VPC"
            return failure(Exit.NAME_NOT_FOUND, fact, problem.hint)
        return ok(f"{self.target.host} resolves in the VPC")

    def tcp(self) -> Finding:
        """Does the target take connections?"""
        problem = self._dial()
        if problem is None:
            return ok(f"the relay is connected to {self.target}")
        if isinstance(problem, DialError) and problem.hint:
            return failure(exit_status(problem), f"{self.target}: {problem.reason}", problem.hint)
        fact = f"{self.target} was not reached: connecting failed"
        return failure(Exit.NOT_REACHED, fact, "see RelayFunction's log for the cause")

    def round_trip(self) -> Finding:
        """How long do a message there and its answer take?"""
        samples = []
        try:
            for _ in range(SAMPLES):
                began = self.clock.monotonic()
                self._open.ping(self.settings.timeout)
                samples.append(self.clock.monotonic() - began)
        except (EmissaryError, TimeoutError) as exc:
            return _broken_tunnel("no answer in time" if isinstance(exc, TimeoutError) else str(exc))
        errors = self._open.gateway_errors
        typical = statistics.median(samples)
        fact = f"to the relay and back, median of {SAMPLES}; slowest {max(samples) * 1000:.0f} ms"
        if errors:
            hint = "$default is throttled or fails now and then: see its log and the account's concurrency"
            return warning(f"{fact}; the gateway reported {errors} errors", hint, typical)
        return ok(fact, typical)

    def service(self) -> Finding:
        """Does what answers there speak as it should?"""
        if self.service_probe is None:
            return skip(f"port {self.target.port} tells no protocol: give --service")
        patience = min(SERVICE_TIMEOUT, self.settings.timeout)
        began = self.clock.monotonic()
        try:
            found = self._open.request(self.service_probe.request, self.service_probe.judge, patience)
        except TimeoutError:
            if (cause := self._tunnel_fault()) is not None:  # a relay that does not answer explains it too
                return _broken_tunnel(cause)
            fact = f"connected, but silent for {patience:g} s: {self.service_probe.title} would have answered"
            return failure(Exit.SERVICE, fact, self.service_probe.silence)
        except TransportError as exc:
            return _broken_tunnel(str(exc))
        except EmissaryError as exc:
            fact = f"the connection broke before {self.service_probe.title} answered: {exc}"
            return failure(Exit.SERVICE, fact, self.service_probe.silence)
        took = self.clock.monotonic() - began
        return Finding(found.status, found.fact, found.hint, took, found.exit)

    def _tunnel_fault(self) -> str | None:
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
            return skip("the first start was a warm one")
        probe = self.make_probe()
        try:
            probe.connect_with_retry(self.settings.timeout)
            began = self.clock.monotonic()
            probe.dial(self.target, self.settings.timeout)
            took = self.clock.monotonic() - began
        except (EmissaryError, TimeoutError) as exc:
            return warning(f"a second dial failed: {exc}", "try again: something fails now and then")
        finally:
            probe.close()
        if took < first * COLD_SHARE:
            return ok(f"the first start was cold; a warm one saves {(first - took) * 1000:.0f} ms", took)
        return ok("a second start takes as long: the target is far away, or each start is a cold one", took)


def _broken_tunnel(cause: str) -> Finding:
    """The tunnel broke after the dial."""
    return failure(
        Exit.CUT_OFF,
        f"the tunnel broke: {cause}",
        "try again; if it stays so, see the session in the logs of DefaultFunction and RelayFunction",
    )


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True
