"""The checks before the bridge: name, TCP, TLS, clock."""

from __future__ import annotations

import errno
import ipaddress
import socket
import ssl
from dataclasses import dataclass, field
from typing import Final

from emissary_lib.doctor.checks import Finding, failure, ok, skip, warning
from emissary_lib.doctor.configuration import EXECUTE_API, Settings
from emissary_lib.doctor.ports import Clock, Connection, Connector, Resolver, Tls
from emissary_lib.exceptions import AuthenticationError
from emissary_lib.exit_status import Exit
from emissary_lib.protocol.auth.httpdate import parse_http_date
from emissary_lib.protocol.constants import CLOCK_SKEW
from emissary_lib.transport.proxy import Proxy
from emissary_lib.transport.trust import explain_certificate

#: Difference of clocks, in seconds, from which on one should be set: a few minutes are lost soon enough.
NOTABLE_SKEW: Final = 60.0

#: Longest wait for the gateway to tell the time, in seconds. A server that answers no GET is not waited for.
TIME_TIMEOUT: Final = 5.0

#: What a VPC's addresses may be, and no public service's: RFC 1918, RFC 6598, RFC 4193, link-local.
_PRIVATE: Final = tuple(
    map(
        ipaddress.ip_network,
        ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7", "fe80::/10"),
    )
)

_ENDPOINT_HINT: Final = (
    "an execute-api VPC endpoint with private DNS captures this name, and WebSocket APIs cannot be reached "
    "through one: switch its private DNS off, or use a custom domain by alias records"
)


#: Days before its end at which a certificate should have been renewed: ACM begins 60 days before.
RENEW_DAYS: Final = 14

_DAY: Final = 86_400.0


@dataclass
class Gateway:
    """The checks between the settings and the bridge.

    Attributes:
        settings: Whose gateway it is.
        resolver: Looks its name up.
        connector: Connects to it.
        clock: Ours.
    """

    settings: Settings
    resolver: Resolver
    connector: Connector
    clock: Clock
    _addresses: tuple[str, ...] = ()
    _connection: Connection | None = field(default=None, repr=False)

    @property
    def _destination(self) -> tuple[str, int, str]:
        """Host and port that are really connected to, and what they are."""
        if (proxy := self._proxy) is not None:
            return *proxy.address, "the proxy"
        return *self.settings.known_endpoint.address, "the gateway"

    @property
    def _proxy(self) -> Proxy | None:
        return self.settings.proxy_of(self.settings.known_endpoint.url)

    def dns(self) -> Finding:
        """Does the gateway's name resolve, and to something that can work?"""
        host, _port, what = self._destination
        began = self.clock.monotonic()
        try:
            self._addresses = self.resolver(host, self.settings.timeout)
        except OSError as exc:
            hint = "check the URL's spelling, that the stack still exists, and this machine's DNS"
            if isinstance(exc, TimeoutError) or getattr(exc, "errno", None) == socket.EAI_AGAIN:
                hint = "this machine's name servers do not answer: check its DNS settings and network"
            if self._proxy:
                hint = f"check {self._proxy.variable}, or name the gateway in no_proxy"
            return failure(Exit.GATEWAY_NAME, f"{what}'s name {host} does not resolve: {_reason(exc)}", hint)
        took = self.clock.monotonic() - began
        fact = f"{what} {host} is {', '.join(self._addresses)}"
        private = all(map(_is_private, self._addresses))
        self.settings.private = private and self._proxy is None
        if self.settings.private and EXECUTE_API.fullmatch(host):
            return warning(f"{fact}: private addresses", _ENDPOINT_HINT, took)
        return ok(fact, took)

    def tcp(self) -> Finding:
        """Does anything listen there?"""
        _host, port, what = self._destination
        causes = []
        for address in self._addresses:
            began = self.clock.monotonic()
            try:
                self._connection = self.connector(address, port, self.settings.timeout)
            except OSError as exc:
                causes.append(f"{address} port {port}: {_reason(exc)}")
            else:
                took = self.clock.monotonic() - began
                fact = f"connected to {what} at {address} port {port}"
                if causes:
                    return warning(fact, f"not every address answers: {'; '.join(causes)}", took)
                return ok(fact, took)
        hint = f"check the URL, and that a firewall here lets connections out to port {port}"
        if self.settings.private:
            hint = _ENDPOINT_HINT
        if self._proxy:
            hint = f"check {self._proxy.variable}, or name the gateway in no_proxy"
        return failure(Exit.GATEWAY, f"cannot connect to {what}: {'; '.join(causes)}", hint)

    def tls(self) -> Finding:
        """Is it who it says, and for how long?"""
        endpoint = self.settings.known_endpoint
        if not endpoint.secure:
            return skip("the URL is ws://, without TLS")
        if self._proxy:
            return skip("TLS runs inside the proxy's tunnel; the check connect covers it")
        began = self.clock.monotonic()
        try:
            handshake = self._open.secure(endpoint.address[0], endpoint.tls(), self.settings.timeout)
        except OSError as exc:  # ssl.SSLError is one
            fact, hint = explain_tls_failure(exc, endpoint.address[0])
            return failure(Exit.GATEWAY_TLS, fact, hint)
        took = self.clock.monotonic() - began
        return judge_tls(handshake, self.clock.unix(), took)

    def skew(self) -> Finding:
        """Does the gateway's clock agree with ours?"""
        endpoint = self.settings.known_endpoint
        if self._proxy:
            return skip("behind a proxy the gateway is not asked for the time; the check connect covers it")
        before = self.clock.unix()
        try:
            answer = self._open.ask(
                endpoint.authority, endpoint.path, min(self.settings.timeout, TIME_TIMEOUT)
            )
            unix = parse_http_date(answer.date or "")
        except (OSError, ValueError, AuthenticationError) as exc:
            cause = "it sends no date" if isinstance(exc, AuthenticationError) else _reason(exc)
            return warning(
                f"the gateway did not tell the time: {cause}",
                "see the next check; what answers there may be no API Gateway",
            )
        after = self.clock.unix()
        # A Date header is cut off to the second.
        return judge_skew((before + after) / 2 - (unix + 0.5), after - before)

    def close(self) -> None:
        """Close the connection. Idempotent."""
        if self._connection is not None:
            self._connection.close()

    @property
    def _open(self) -> Connection:
        assert self._connection is not None, "the check tcp comes first"
        return self._connection


def judge_skew(skew: float, seconds: float | None = None) -> Finding:
    """What it means that our clock is ``skew`` seconds ahead of the gateway's."""
    direction = "ahead of" if skew > 0 else "behind"
    fact = f"this clock is {abs(skew):.0f} s {direction} the gateway's"
    hint = "set this machine's clock (NTP): signatures carry its time"
    if abs(skew) > CLOCK_SKEW:
        return failure(Exit.CLOCK, f"{fact}; at most {CLOCK_SKEW:.0f} s are accepted", hint, seconds)
    if abs(skew) > NOTABLE_SKEW:
        return warning(f"{fact}; {CLOCK_SKEW:.0f} s are accepted", hint, seconds)
    return ok("this clock and the gateway's agree" if abs(skew) <= 2 else fact, seconds)


def judge_tls(handshake: Tls, unix_now: float, seconds: float) -> Finding:
    """A handshake that succeeded."""
    fact = f"{handshake.version}, certificate by {handshake.issuer}"
    if handshake.expires is None:
        return ok(fact, seconds)
    days = (handshake.expires - unix_now) / _DAY
    fact += f", valid for {days:.0f} more days"
    if days < RENEW_DAYS:
        return warning(fact, "the certificate runs out: see in ACM why it is not renewed", seconds)
    return ok(fact, seconds)


def explain_tls_failure(exc: OSError, host: str) -> tuple[str, str]:
    """A handshake that failed: the fact, and what to do."""
    if isinstance(exc, ssl.SSLCertVerificationError):
        return explain_certificate(exc, host)
    if isinstance(exc, TimeoutError):
        return "no answer to the TLS handshake", "a firewall may drop it: try from another network"
    if isinstance(exc, ssl.SSLError) and exc.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST"):
        return (
            "what answers there does not speak TLS",
            "check the URL's port; a local cloud without TLS has ws://",
        )
    return (
        f"the TLS handshake failed: {exc.strerror or exc}",
        "a firewall or an intercepting proxy may have cut it: try from another network",
    )


def _is_private(address: str) -> bool:
    found = ipaddress.ip_address(address.partition("%")[0])
    return any(found in network for network in _PRIVATE)


def _reason(exc: Exception) -> str:
    if isinstance(exc, TimeoutError):
        return "no answer in time"
    if isinstance(exc, OSError) and exc.errno == errno.ECONNREFUSED:
        return "connection refused"
    return getattr(exc, "strerror", None) or str(exc) or type(exc).__name__
