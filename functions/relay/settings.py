"""The relay's settings, from the environment that template.yaml gives it."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from emissary_lib.protocol.errors import ConfigError
from emissary_lib.protocol.targets import AllowList
from functions.common.config import ALLOWED_TARGETS, REGION

WEBSOCKET_URL = "EMISSARY_WEBSOCKET_URL"
DNS_SERVERS = "EMISSARY_DNS_SERVERS"


@dataclass(frozen=True, slots=True)
class RelaySettings:
    """Attributes:
    region: The API's region.
    websocket_url: The only address the relay dials back to, whoever invokes it.
    allow: Targets it may connect to.
    dns_servers: Servers to ask for names, in order; empty for the VPC's resolver.
    """

    region: str
    websocket_url: str
    allow: AllowList
    dns_servers: tuple[str, ...]

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
        allow = AllowList()
        try:
            allow = AllowList.parse(environ.get(ALLOWED_TARGETS, ""))
        except ConfigError as exc:
            faults += [f"{ALLOWED_TARGETS}: {fault}" for fault in exc.faults]
        if faults:
            raise ConfigError(*faults)
        return cls(region, url, allow, servers)

    @property
    def domain(self) -> str:
        """The API's host, with its port where the URL has one."""
        return urlsplit(self.websocket_url).netloc

    @property
    def stage(self) -> str:
        """The API's stage."""
        return urlsplit(self.websocket_url).path.strip("/")


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
