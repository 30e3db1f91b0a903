"""The checks at the bridge: the upgrade, its answer, its version, its proof, its health."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from emissary_lib.client.handshake import error_from_status
from emissary_lib.client.health import Health
from emissary_lib.doctor.checks import Finding, Status, failure, ok, skip, warning
from emissary_lib.doctor.configuration import Settings
from emissary_lib.doctor.gateway import judge_skew
from emissary_lib.doctor.ports import Clock, Probe
from emissary_lib.exceptions import (
    RECONFIGURE,
    SHARE_RELAYS,
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
from emissary_lib.protocol.constants import VERSION
from emissary_lib.protocol.opening.banner import Banner
from emissary_lib.protocol.wire.health import Usage
from emissary_lib.transport.backoff import back_off, jitter, may_pass
from emissary_lib.transport.websocket import OriginalServerError

#: How often an upgrade that is throttled or fails is tried. A dial goes on for as long as it may; here it is
#: enough to tell what passes from what stays.
ATTEMPTS: Final = 4

_LOGS: Final = "see the log group of {function} in CloudWatch"


@dataclass
class Bridge:
    """The checks at the bridge.

    Attributes:
        settings: Whose bridge it is.
        make_probe: Makes a session that has not begun.
        clock: Ours.
        sleep: Waits so many seconds.
        draw: Gives a random number from 0 to 1, for those waits.
        original: Whether the server accepts no subprotocol, as the original Emissary's does.
    """

    settings: Settings
    make_probe: Callable[[], Probe]
    clock: Clock
    sleep: Callable[[float], None]
    draw: Callable[[], float] = jitter
    original: bool = field(default=False, init=False)
    probe: Probe | None = field(default=None, init=False)
    _banner: Banner | None = field(default=None, init=False)
    _unproved: EmissaryError | None = field(default=None, init=False)

    def connect(self) -> Finding:
        """Does ``$connect`` accept the upgrade?"""
        misses: list[str] = []
        waits = back_off(self.draw)
        while True:
            probe = self.make_probe()
            began = self.clock.monotonic()
            try:
                probe.connect_once(self.settings.timeout)
            except TimeoutError:
                return failure(
                    Exit.CONNECT,
                    f"no answer to the upgrade within {self.settings.timeout:g} s",
                    f"the gateway waits for $connect: {_LOGS.format(function='ConnectFunction')}",
                )
            except (AnswerLostError, GatewayRefusedError) as exc:
                lasting = isinstance(exc, GatewayRefusedError) and not may_pass(exc.http_status)
                if lasting or len(misses) + 1 == ATTEMPTS:
                    return self._explain_failure(exc, self.clock.monotonic() - began)
                self.sleep(next(waits))
                misses.append(_short_cause(exc))
            except OriginalServerError:
                self.original = True
                took = self.clock.monotonic() - began
                return ok(
                    "the server takes WebSockets, but knows no emissary.v2: the original may be there", took
                )
            except EmissaryError as exc:
                return self._explain_failure(exc, self.clock.monotonic() - began)
            else:
                break
        took = self.clock.monotonic() - began
        self.probe = probe
        fact = f"$connect accepts key id {self.settings.known_key.key_id}"
        if misses:
            hint = (
                "if that goes on, see the stage's throttle, the account's limits, and ConnectFunction's log"
            )
            return warning(f"{fact}, but first there was {' and '.join(misses)}", hint, took)
        return ok(fact, took)

    def _explain_failure(self, exc: EmissaryError, took: float) -> Finding:
        if isinstance(exc, GatewayRefusedError):
            return explain_refusal(exc, self.settings, took)
        if isinstance(exc, AnswerLostError):
            return failure(
                Exit.CONNECT,
                "the connection is cut each time before the upgrade is answered",
                "a proxy or firewall on the way may not let WebSockets through: try another network",
                took,
            )
        if isinstance(exc, GatewayUnreachableError) and "does not speak" in str(exc):
            return failure(
                Exit.CONNECT,
                str(exc),
                "something else answers at this URL: take WebSocketUrl from the stack's outputs",
                took,
            )
        return failure(
            Exit.CONNECT,
            str(exc),
            "see the checks before this one, and whether there is a proxy on the way",
            took,
        )

    def answer(self) -> Finding:
        """Does ``$default`` answer?"""
        began = self.clock.monotonic()
        problem: EmissaryError | TimeoutError | None = None
        try:
            self._banner = self.open_probe.prove(self.settings.timeout)
        except (UnsupportedVersionError, ServerProofError) as exc:
            self._unproved = exc  # for the checks that follow
        except (EmissaryError, TimeoutError) as exc:
            problem = exc
        took = self.clock.monotonic() - began
        errors = self.open_probe.gateway_errors
        if problem is not None:
            return _no_answer(problem, errors, self.settings.timeout, took)
        if errors:
            hint = "$default is throttled or fails now and then: see its log and the account's concurrency"
            return warning(f"$default answers, after {errors} errors of the gateway's", hint, took)
        return ok("$default answers", took)

    def version(self) -> Finding:
        """Does the bridge speak our version of the protocol?"""
        if isinstance(self._unproved, UnsupportedVersionError):
            return failure(
                Exit.VERSION,
                str(self._unproved),
                "upgrade whichever is older: emissary-lib here, or the stack",
            )
        if self._banner is None:
            return ok(f"protocol {VERSION}")
        banner = self._banner
        return ok(f"protocol {banner.protocol_version}, {banner.server_software} {banner.server_version}")

    def proof(self) -> Finding:
        """Does the bridge hold the key as well?"""
        if self._unproved is not None:
            return failure(
                Exit.PROOF,
                str(self._unproved),
                "send it nothing: check the URL, and who stands between here and the gateway",
            )
        self.close()  # the checks that follow have sessions of their own
        return ok("the server holds the key as well")

    def close(self) -> None:
        """End the session. Idempotent."""
        if self.probe is not None:
            self.probe.close()

    @property
    def open_probe(self) -> Probe:
        """The session; only after the check ``connect``."""
        assert self.probe is not None, "the check connect comes first"
        return self.probe


def health(settings: Settings, ask: Callable[[Settings], Health], clock: Clock) -> Finding:
    """Is the bridge well? Fails only if no dial can work; without an answer, one may all the same.

    Args:
        settings: Whose bridge it is.
        ask: Asks it; raises what :func:`emissary_lib.client.health.check_health` raises.
        clock: Ours.
    """
    began = clock.monotonic()
    try:
        answer = ask(settings)
    except RemoteProtocolError as exc:
        return skip(f"the bridge does not answer the question: {exc}")
    except (EmissaryError, TimeoutError) as exc:
        cause = "no answer in time" if isinstance(exc, TimeoutError) else str(exc)
        return warning(
            f"the bridge did not answer the question: {cause}", "try again; else see DefaultFunction's log"
        )
    took = clock.monotonic() - began
    if answer.fault:  # as a dial ends that is told so
        return failure(
            Exit.NOT_REACHED, f"the bridge's settings are wrong: {answer.fault}", RECONFIGURE, took
        )
    fact = (
        f"valid key ids: {', '.join(map(str, answer.key_ids))}; sessions in all: {_usage(answer.usage)}, "
        f"of this key: {_usage(answer.key_usage)}"
    )
    if answer.usage.reached or answer.key_usage.reached:
        name = "MaxSessions or RelayConcurrency" if answer.usage.reached else "MaxSessionsPerKey"
        hint = (
            f"no further relay is started: end sessions (emissary sessions), {SHARE_RELAYS}, or raise {name}"
        )
        return warning(fact, hint, took)
    stale = [str(each) for each in settings.key_ids if each not in answer.key_ids]
    if stale:
        hint = f"EMISSARY_AUTH_KEYS also holds keys that are not valid there, of id {', '.join(stale)}"
        return warning(fact, hint, took)
    return ok(fact, took)


def _usage(usage: Usage) -> str:
    return f"{usage.sessions} of {usage.limit}" if usage.limit else "not limited"


def explain_refusal(exc: GatewayRefusedError, settings: Settings, took: float) -> Finding:
    """An answer to the upgrade that is not 101."""
    status = exc.http_status
    error = error_from_status(exc, settings.known_key, settings.known_endpoint.host)
    if isinstance(error, ClockSkewError):
        skewed = judge_skew(error.skew, took)
        if skewed.status is Status.FAILED:
            return skewed
    if status == 403 and settings.private:
        return failure(
            Exit.GATEWAY,
            "HTTP status 403 from a private address: an execute-api VPC endpoint refuses WebSocket APIs",
            "switch private DNS off at that endpoint, or use a custom domain by alias records",
            took,
        )
    if isinstance(error, AuthenticationError):
        return failure(
            Exit.KEY, f"HTTP status {status}: {_UNAUTHENTICATED[status]}", _after_colon(error), took
        )
    fact, hint = _OTHERS.get(status) or _OTHERS[500 if status >= 500 else 0]
    return failure(Exit.CONNECT, f"HTTP status {status}: {fact}", hint, took)


#: What is wrong with what was shown, by status.
_UNAUTHENTICATED: Final[dict[int, str]] = {
    401: "no usable signature arrived",
    403: "the key or the URL is not accepted",
    421: "the key is right, but the URL's host is not the API's",
}

#: What the gateway may answer besides: by status, 500 for all from there on, 0 for the rest.
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
        f"{_LOGS.format(function='ConnectFunction')}; it may lack a permission, its table or its keys, "
        "whose secret must be of the stack's region",
    ),
    0: ("not an answer of the bridge", "something else answers at this URL, or on the way: check the URL"),
}


def _no_answer(problem: EmissaryError | TimeoutError, errors: int, timeout: float, took: float) -> Finding:
    logs = _LOGS.format(function="DefaultFunction")
    said = f", and the gateway reported {errors} errors" if errors else ""
    if isinstance(problem, AuthenticationError):
        hint = "the key was just retired, or $connect and $default have different keys: deploy again"
        return failure(Exit.KEY, str(problem), hint, took)
    if isinstance(problem, TimeoutError):
        hint = f"{logs}; is it throttled, or does its post to @connections fail?"
        return failure(Exit.BRIDGE, f"$default did not answer within {timeout:g} s{said}", hint, took)
    if isinstance(problem, LinkClosedError):
        return failure(Exit.BRIDGE, f"the WebSocket was cut: {problem}{said}", f"try again, and {logs}", took)
    if isinstance(problem, RemoteProtocolError):
        return failure(Exit.BRIDGE, str(problem), "something else than Emissary answers: check the URL", took)
    return failure(Exit.BRIDGE, f"{problem}{said}", logs, took)


def _short_cause(exc: EmissaryError) -> str:
    return f"HTTP status {exc.http_status}" if isinstance(exc, GatewayRefusedError) else "a lost answer"


def _after_colon(exc: EmissaryError) -> str:
    """The cause, which stands after what was tried."""
    return str(exc).partition(": ")[2] or str(exc)
