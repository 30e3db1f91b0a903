"""The checks of the original Emissary's server, in the place of those of a bridge and its relays."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass, field

from emissary_lib.doctor.checks import Finding, failure, ok, skip
from emissary_lib.doctor.configuration import Settings
from emissary_lib.doctor.ports import Clock
from emissary_lib.doctor.service_probes import ServiceProbe
from emissary_lib.doctor.vpc import SERVICE_TIMEOUT
from emissary_lib.exceptions import (
    AuthenticationError,
    DialError,
    EmissaryError,
    TargetNotAllowedError,
    TargetUnreachableError,
)
from emissary_lib.exit_status import Exit, exit_status
from emissary_lib.protocol.opening.banner import Banner
from emissary_lib.protocol.targets.allow_list import Target
from emissary_lib.transport.deadline import Deadline

#: Bytes of the target's that are read at once.
_CHUNK = 65_536


@dataclass
class Original:
    """The checks behind the check ``connect``, for one target if there is one.

    Attributes:
        settings: Whose server it is.
        target: What is to be reached; ``None`` if none was named: the checks end before it then.
        service_probe: What it is expected to speak; ``None`` if that is not known.
        ask: Asks whether the key is accepted, as :func:`emissary_lib.client.original.check_key`.
        dial: Reaches the target, as :meth:`emissary_lib.Dialer.dial`.
        clock: Ours.
    """

    settings: Settings
    target: Target | None
    service_probe: ServiceProbe | None
    ask: Callable[[Settings], Banner]
    dial: Callable[[Settings, Target], socket.socket]
    clock: Clock
    _banner: Banner | None = field(default=None, init=False)
    _dialled: bool = field(default=False, init=False)
    _socket: socket.socket | None = field(default=None, init=False)
    _problem: EmissaryError | None = field(default=None, init=False)
    _took: float = field(default=0.0, init=False)

    def answer(self) -> Finding:
        """Does it greet as the original does, and accept the key?"""
        began = self.clock.monotonic()
        try:
            self._banner = self.ask(self.settings)
        except AuthenticationError as exc:
            return failure(Exit.KEY, str(exc), "compare key ids and secrets, and set both clocks (NTP)")
        except TimeoutError:
            fact = f"the server takes WebSockets, but did not answer within {self.settings.timeout:g} s"
            return failure(Exit.BRIDGE, fact, "something else than Emissary may be there: check the URL")
        except EmissaryError as exc:
            return failure(Exit.BRIDGE, str(exc), "something else than Emissary answers: check the URL")
        took = self.clock.monotonic() - began
        fact = f"the original Emissary is there, and accepts key id {self.settings.known_key.key_id}"
        return ok(fact, took)

    def version(self) -> Finding:
        """What does it say of itself?"""
        assert self._banner, "the check answer comes first"
        banner = self._banner
        return ok(
            f"protocol {banner.protocol_version} of the original Emissary, "
            f"{banner.server_software} {banner.server_version}"
        )

    def proof(self) -> Finding:
        """It has none."""
        return skip("the original Emissary proves nothing: TLS alone says who it is")

    def health(self) -> Finding:
        """It is not asked."""
        return skip("the original Emissary has no such question")

    def long_messages(self) -> Finding:
        """There is no longest one."""
        return skip("the original Emissary takes messages of any length")

    # -- with a target ----------------------------------------------------------------------------

    def allowed(self) -> Finding:
        """Is the target on the allow-list?"""
        problem = self._dial()
        if isinstance(problem, TargetNotAllowedError):
            return failure(Exit.NOT_ALLOWED, f"{self.target} is not on the allow-list", problem.hint)
        return ok(
            f"{self.target} is on the allow-list" if problem is None else f"{self.target} was not refused"
        )

    def relay(self) -> Finding:
        """There is none."""
        return skip("the original Emissary connects to the target itself")

    def name(self) -> Finding:
        """Does its name resolve there? That is not told."""
        if isinstance(self._dial(), TargetUnreachableError):
            return skip("the original Emissary does not tell a name that it cannot resolve")
        return ok("the server knows where the target is")

    def tcp(self) -> Finding:
        """Does the target take connections?"""
        problem = self._dial()
        if problem is None:
            return ok(f"the server is connected to {self.target}", self._took)
        if isinstance(problem, DialError) and problem.hint:
            return failure(exit_status(problem), f"{self.target}: {problem.reason}", problem.hint)
        return failure(exit_status(problem), str(problem), "see the server's log for the cause")

    def round_trip(self) -> Finding:
        """It is not measured: what answers a Ping is the server, and it may wait for its target."""
        return skip("the check service measures it, by the target's own answer")

    def service(self) -> Finding:
        """Does what answers there speak as it should?"""
        probe = self.service_probe
        if probe is None:
            assert self.target
            return skip(f"port {self.target.port} tells no protocol: give --service")
        assert self._socket, "the check target comes first"
        patience = Deadline(min(SERVICE_TIMEOUT, self.settings.timeout))
        began, received, ended = self.clock.monotonic(), b"", False
        try:
            self._socket.settimeout(patience.timeout)
            self._socket.sendall(probe.request)
            while (found := probe.judge(received, ended)) is None:
                self._socket.settimeout(max(0.001, patience.remaining() or 0.0))
                data = self._socket.recv(_CHUNK)
                received, ended = received + data, not data
        except TimeoutError:
            fact = f"connected, but silent for {patience.timeout:g} s: {probe.title} would have answered"
            return failure(Exit.SERVICE, fact, probe.silence)
        except (EmissaryError, OSError) as exc:
            fact = f"the connection broke before {probe.title} answered: {exc}"
            return failure(Exit.SERVICE, fact, probe.silence)
        took = self.clock.monotonic() - began
        return Finding(found.status, found.fact, found.hint, took, found.exit)

    def warm(self) -> Finding:
        """Nothing starts."""
        return skip("the original Emissary starts nothing for a dial")

    def close(self) -> None:
        """End the connection. Idempotent."""
        if self._socket is not None:
            self._socket.close()

    def _dial(self) -> EmissaryError | None:
        """Dial, once; several checks report what became of it."""
        assert self.target
        if not self._dialled:
            self._dialled = True
            began = self.clock.monotonic()
            try:
                self._socket = self.dial(self.settings, self.target)
            except EmissaryError as exc:
                self._problem = exc
            self._took = self.clock.monotonic() - began
        return self._problem
