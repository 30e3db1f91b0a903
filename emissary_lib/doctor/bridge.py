"""The rungs at the bridge: its door, its answer, its version, its proof."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from emissary_lib.client.handshake import error_from_status
from emissary_lib.doctor.configuration import Settings
from emissary_lib.doctor.gateway import judge_skew
from emissary_lib.doctor.ports import Clock, Way
from emissary_lib.doctor.report import Finding, Status, failed, ok, warning
from emissary_lib.exceptions import (
    AnswerLostError,
    AuthenticationError,
    ClockSkewError,
    EmissaryError,
    GatewayRefusedError,
    GatewayUnreachableError,
    LinkClosedError,
    RemoteProtocolError,
    ServerProofError,
    UnsupportedVersionError,
)
from emissary_lib.exit_status import Exit
from emissary_lib.protocol.opening.banner import PROTOCOL_VERSION, Banner
from emissary_lib.transport.backoff import jitter

#: How often a door that is throttled or fails is knocked at, and the waits between, in seconds. A dial goes
#: on for as long as it may; here it is enough to tell what passes from what stays.
ATTEMPTS: Final = 3
PAUSES: Final = (0.2, 0.6)

_LOGS: Final = "see the log group of {function} in CloudWatch"


@dataclass
class Bridge:
    """The rungs at the bridge.

    Attributes:
        settings: Whose bridge it is.
        make_way: Begins a session.
        clock: Ours.
        pause: Waits so many seconds.
        draw: Gives a random number from 0 to 1, for those waits.
    """

    settings: Settings
    make_way: Callable[[], Way]
    clock: Clock
    pause: Callable[[float], None]
    draw: Callable[[], float] = jitter
    way: Way | None = field(default=None, init=False)
    _banner: Banner | None = field(default=None, init=False)
    _unproved: EmissaryError | None = field(default=None, init=False)

    def connect(self) -> Finding:
        """Does ``$connect`` let us in?"""
        misses: list[str] = []
        while True:
            way = self.make_way()
            began = self.clock.monotonic()
            try:
                way.connect_once(self.settings.timeout)
            except TimeoutError:
                return failed(
                    Exit.DOOR,
                    f"no answer to the upgrade within {self.settings.timeout:g} s",
                    f"the gateway waits for $connect: {_LOGS.format(function='ConnectFunction')}",
                )
            except (AnswerLostError, GatewayRefusedError) as exc:
                if len(misses) + 1 == ATTEMPTS or not _may_pass(exc):
                    return self._shut_out(exc, self.clock.monotonic() - began)
                self.pause(PAUSES[len(misses)] * (0.5 + self.draw()))
                misses.append(_short(exc))
            except EmissaryError as exc:
                return self._shut_out(exc, self.clock.monotonic() - began)
            else:
                break
        took = self.clock.monotonic() - began
        self.way = way
        fact = f"$connect accepts key id {self.settings.known_key.key_id}"
        if misses:
            remedy = (
                "if that goes on, see the stage's throttle, the account's limits, and ConnectFunction's log"
            )
            return warning(f"{fact}, but first there was {' and '.join(misses)}", remedy, took)
        return ok(fact, took)

    def _shut_out(self, exc: EmissaryError, took: float) -> Finding:
        if isinstance(exc, GatewayRefusedError):
            return explain_refusal(exc, self.settings, took)
        if isinstance(exc, AnswerLostError):
            return failed(
                Exit.DOOR,
                "the connection is cut each time before the upgrade is answered",
                "a proxy or firewall on the way may not let WebSockets through: try another network",
                took,
            )
        if isinstance(exc, GatewayUnreachableError) and "does not speak" in str(exc):
            return failed(
                Exit.DOOR,
                str(exc),
                "something else answers at this URL: take WebSocketUrl from the stack's outputs",
                took,
            )
        return failed(Exit.DOOR, str(exc), "see the rungs before this one, and a proxy on the way", took)

    def answer(self) -> Finding:
        """Does ``$default`` answer?"""
        began = self.clock.monotonic()
        problem: EmissaryError | TimeoutError | None = None
        try:
            self._banner = self.open_way.prove(self.settings.timeout)
        except (UnsupportedVersionError, ServerProofError) as exc:
            self._unproved = exc  # for the rungs that follow
        except (EmissaryError, TimeoutError) as exc:
            problem = exc
        took = self.clock.monotonic() - began
        errors = self.open_way.gateway_errors
        if problem is not None:
            return _no_answer(problem, errors, self.settings.timeout, took)
        if errors:
            remedy = "$default is throttled or fails now and then: see its log and the account's concurrency"
            return warning(f"$default answers, after {errors} errors of the gateway's", remedy, took)
        return ok("$default answers", took)

    def version(self) -> Finding:
        """Does the bridge speak our version of the protocol?"""
        if isinstance(self._unproved, UnsupportedVersionError):
            return failed(
                Exit.VERSION,
                str(self._unproved),
                "upgrade whichever is older: emissary-lib here, or the stack",
            )
        if self._banner is None:
            return ok(f"protocol {PROTOCOL_VERSION}")
        told = self._banner
        return ok(f"protocol {told.protocol_version}, {told.server_software} {told.server_version}")

    def proof(self) -> Finding:
        """Does the bridge hold the key as well?"""
        if self._unproved is not None:
            return failed(
                Exit.PROOF,
                str(self._unproved),
                "send it nothing: check the URL, and who stands between here and the gateway",
            )
        self.close()  # the rungs that follow have sessions of their own
        return ok("the server holds the key as well")

    def close(self) -> None:
        """End the session. Idempotent."""
        if self.way is not None:
            self.way.close()

    @property
    def open_way(self) -> Way:
        """The session; only behind the rung of ``$connect``."""
        assert self.way is not None, "the rung of $connect comes first"
        return self.way


def explain_refusal(exc: GatewayRefusedError, settings: Settings, took: float) -> Finding:
    """An answer to the upgrade that is not 101."""
    status = exc.http_status
    told = error_from_status(exc, settings.known_key)
    if isinstance(told, ClockSkewError):
        skewed = judge_skew(told.skew, took)
        if skewed.status is Status.FAILED:
            return skewed
    if status == 403 and settings.private:
        return failed(
            Exit.GATEWAY,
            "HTTP status 403 from a private address: an execute-api VPC endpoint refuses WebSocket APIs",
            "switch private DNS off at that endpoint, or use a custom domain",
            took,
        )
    if isinstance(told, AuthenticationError):
        what = (
            "no usable signature arrived" if status == 401 else "the key or the URL's stage is not accepted"
        )
        return failed(Exit.KEY, f"HTTP status {status}: {what}", _after_colon(told), took)
    fact, remedy = _OTHERS.get(status) or _OTHERS[500 if status >= 500 else 0]
    return failed(Exit.DOOR, f"HTTP status {status}: {fact}", remedy, took)


#: What else the gateway may say: by status, 500 for all from there on, 0 for the rest.
_OTHERS: Final[dict[int, tuple[str, str]]] = {
    400: (
        "$connect does not understand the request",
        "use a dialer and a bridge of the same release; see ConnectFunction's log",
    ),
    404: (
        "there is nothing at this path",
        "check the URL's stage; behind a custom domain, its API mapping",
    ),
    409: ("$connect saw this session before", "something on the way repeats requests: try without a proxy"),
    410: ("the API is gone", "take WebSocketUrl from the stack's outputs"),
    429: (
        "throttled",
        "wait, and see the stage's throttle for $connect, Lambda's concurrency, and who else connects",
    ),
    504: (
        "$connect took longer than the gateway's 29 s",
        "see ConnectFunction's log: its table or its key secret may not answer",
    ),
    500: (
        "$connect fails",
        f"{_LOGS.format(function='ConnectFunction')}; it may lack a permission, its table or its keys",
    ),
    0: ("not an answer of our bridge", "something else answers at this URL, or on the way: check the URL"),
}


def _no_answer(problem: EmissaryError | TimeoutError, errors: int, timeout: float, took: float) -> Finding:
    logs = _LOGS.format(function="DefaultFunction")
    said = f", and the gateway reported {errors} errors" if errors else ""
    if isinstance(problem, AuthenticationError):
        remedy = "the key was just retired, or $connect and $default have different keys: deploy again"
        return failed(Exit.KEY, str(problem), remedy, took)
    if isinstance(problem, TimeoutError):
        remedy = f"{logs}; is it throttled, or does its post to @connections fail?"
        return failed(Exit.BRIDGE, f"$default did not answer within {timeout:g} s{said}", remedy, took)
    if isinstance(problem, LinkClosedError):
        return failed(Exit.BRIDGE, f"the WebSocket was cut: {problem}{said}", f"try again, and {logs}", took)
    if isinstance(problem, RemoteProtocolError):
        return failed(Exit.BRIDGE, str(problem), "something else than Emissary answers: check the URL", took)
    return failed(Exit.BRIDGE, f"{problem}{said}", logs, took)


def _may_pass(exc: EmissaryError) -> bool:
    return not isinstance(exc, GatewayRefusedError) or exc.http_status == 429 or exc.http_status >= 500


def _short(exc: EmissaryError) -> str:
    return f"HTTP status {exc.http_status}" if isinstance(exc, GatewayRefusedError) else "a lost answer"


def _after_colon(exc: EmissaryError) -> str:
    """What the library says of the cause, behind what was tried."""
    return str(exc).partition(": ")[2] or str(exc)
