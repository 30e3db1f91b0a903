"""The relay's settings, from the environment that template.yaml gives it."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from emissary_lib.protocol.constants import GRACE, PING_INTERVAL, PONG_DEADLINE, PROBE_WHEN_UNACKED
from emissary_lib.protocol.errors import ConfigError
from emissary_lib.protocol.record import Record
from emissary_lib.protocol.session.keepalive import ProbeTimes
from emissary_lib.protocol.targets.allow_list import AllowList
from functions.common.config import ALLOWED_TARGETS, GRACE_SECONDS, REGION, read_seconds

WEBSOCKET_URL = "EMISSARY_WEBSOCKET_URL"
DNS_SERVERS = "EMISSARY_DNS_SERVERS"
PING_SECONDS = "EMISSARY_PING_SECONDS"
PONG_SECONDS = "EMISSARY_PONG_SECONDS"
PROBE_SECONDS = "EMISSARY_PROBE_SECONDS"

#: Times that may be set, in seconds, and what they are otherwise (docs/protocol.md sections 4.7 and 5).
_SECONDS: Final = {
    GRACE_SECONDS: GRACE,
    PING_SECONDS: PING_INTERVAL,
    PONG_SECONDS: PONG_DEADLINE,
    PROBE_SECONDS: PROBE_WHEN_UNACKED,
}


class RelaySettings(Record):
    """What a relay is told by its environment.

    Attributes:
        region: The API's region.
        websocket_url: The only address the relay dials back to, whoever invokes it.
        allow: Targets it may connect to.
        dns_servers: Servers to ask for names, in order; empty for the VPC's resolver.
        grace: How long a side without its WebSocket is waited for, in seconds.
        probing: When to ask whether the dialer is still there.
    """

    region: str
    websocket_url: str
    allow: AllowList
    dns_servers: tuple[str, ...]
    grace: float = GRACE
    probing: ProbeTimes = ProbeTimes()

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> RelaySettings:
        """Read the settings.

        Raises:
            ConfigError: With every fault.
        """
        faults: list[str] = []
        url, region = environ.get(WEBSOCKET_URL, "").strip(), environ.get(REGION, "").strip()
        if not _is_websocket_url(url):
            faults.append(f"{WEBSOCKET_URL} is no wss:// URL; template.yaml should set it")
        if not region:
            faults.append(f"{REGION} is not set; Lambda sets it")
        servers = tuple(environ.get(DNS_SERVERS, "").split())
        for server in servers:
            if not _is_address(server):
                faults.append(f"{DNS_SERVERS}: {server!r} is no IP address; separate servers by spaces")
        seconds = {name: read_seconds(environ, name, default, faults) for name, default in _SECONDS.items()}
        allow = AllowList()
        try:
            allow = AllowList.parse(environ.get(ALLOWED_TARGETS, ""))
        except ConfigError as exc:
            faults += [f"{ALLOWED_TARGETS}: {fault}" for fault in exc.faults]
        if faults:
            raise ConfigError(*faults)
        return cls(region, urlsplit(url).geturl(), allow, servers, seconds[GRACE_SECONDS], _probing(seconds))

    @property
    def domain(self) -> str:
        """The API's host, with its port where the URL has one."""
        return urlsplit(self.websocket_url).netloc

    @property
    def stage(self) -> str:
        """The API's stage."""
        return urlsplit(self.websocket_url).path.strip("/")


def _probing(seconds: Mapping[str, float]) -> ProbeTimes:
    dialers, grace = seconds[PING_SECONDS] + seconds[PONG_SECONDS], seconds[GRACE_SECONDS]
    unacked = seconds[PROBE_SECONDS]
    return ProbeTimes(min(dialers, max(unacked, grace)), unacked, unacked / 2, dialers + grace)


def _is_websocket_url(text: str) -> bool:
    try:
        url = urlsplit(text)
        return url.scheme in ("ws", "wss") and bool(url.hostname) and url.port != 0
    except ValueError:  # a broken address or port
        return False


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
