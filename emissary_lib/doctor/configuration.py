"""The first check: are the settings there, and of the right shape?"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from emissary_lib.client.config import AUTH_KEYS, URL, ClientConfig
from emissary_lib.client.endpoint import Endpoint
from emissary_lib.client.settings import SettingsReader, writers_fault
from emissary_lib.doctor.checks import Finding, failure, ok, warning
from emissary_lib.exceptions import ConfigError, PackageError
from emissary_lib.exit_status import Exit
from emissary_lib.protocol.auth.keys import Key
from emissary_lib.transport.proxy import Proxy, check_package

#: API Gateway's own names, in any partition. A VPC endpoint for execute-api with private DNS makes them
#: resolve to itself, and WebSocket APIs cannot be reached through it.
EXECUTE_API: Final = re.compile(r"[a-z0-9-]+\.execute-api\.[a-z0-9-]+(?:\.[a-z0-9-]+)+")


@dataclass
class Settings:
    """What the checks run with; the first one fills in the rest.

    Attributes:
        reader: Finds the settings.
        proxy_of: The proxy on the way to a URL, if there is one.
        timeout: Longest wait of a check, in seconds.
        endpoint: The gateway.
        key: What to sign with.
        key_ids: The ids of all keys that are given.
        private: Whether the gateway's name resolves to private addresses only.
    """

    reader: SettingsReader
    proxy_of: Callable[[str], Proxy | None]
    timeout: float
    endpoint: Endpoint | None = None
    key: Key | None = None
    key_ids: tuple[int, ...] = ()
    private: bool = False

    @property
    def known_endpoint(self) -> Endpoint:
        """The gateway; only after the first check."""
        assert self.endpoint is not None, "the check configuration comes first"
        return self.endpoint

    @property
    def known_key(self) -> Key:
        """What to sign with; only after the first check."""
        assert self.key is not None, "the check configuration comes first"
        return self.key


def configuration(settings: Settings) -> Finding:
    """Are the settings there, and of the right shape?"""
    try:
        config = ClientConfig.read(settings.reader)
        settings.endpoint, settings.key = Endpoint(config.url, ca_file=config.ca_file), config.key
        proxy = settings.proxy_of(settings.endpoint.url)
        if proxy:
            check_package(proxy)
    except PackageError as exc:
        return failure(Exit.USAGE, str(exc), "install it where this command is, then try again")
    except ConfigError as exc:
        return failure(
            Exit.SETTINGS,
            str(exc),
            f"{URL} and {AUTH_KEYS} are what is needed; example.env explains all settings",
        )
    ids = settings.key_ids = tuple(key.key_id for key in config.given.keys)
    others = f", also given: {', '.join(map(str, ids[1:]))}" if ids[1:] else ""
    endpoint = settings.endpoint
    fact = f"{endpoint.url} from {config.url_source}, signing with key id {ids[0]}{others}"
    if config.given.source != config.url_source:
        fact += f" from {config.given.source}"
    if proxy:
        fact += f", through the proxy {proxy} ({proxy.variable})"
    if endpoint.path == "/" and EXECUTE_API.fullmatch(endpoint.address[0]):
        return warning(fact, "the URL has no stage: take WebSocketUrl from the stack's outputs as it is")
    if config.given.file and (fault := writers_fault(config.given.file)):
        return warning(f"{fact}; {fault}", f"chmod 600 {config.given.file}")
    return ok(fact)
