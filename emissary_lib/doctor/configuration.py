"""The first check: are the settings there, and of the right shape?"""

from __future__ import annotations

import pathlib
import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from emissary_lib.client.config import AUTH_KEYS, URL, ClientConfig, keys_fault, read_env_file
from emissary_lib.client.endpoint import Endpoint
from emissary_lib.doctor.checks import Finding, failure, ok, warning
from emissary_lib.exceptions import ConfigError
from emissary_lib.exit_status import Exit
from emissary_lib.protocol.auth.keys import Key, parse_keys

#: API Gateway's own names. A VPC endpoint for execute-api with private DNS makes them resolve to itself, and
#: WebSocket APIs cannot be reached through it.
EXECUTE_API: Final = re.compile(r"[a-z0-9-]+\.execute-api\.[a-z0-9-]+\.(?:amazonaws\.com(?:\.cn)?|api\.aws)")


@dataclass
class Settings:
    """What the checks run with; the first one fills in the rest.

    Attributes:
        environ: Where the settings stand.
        env_file: Where those stand that are missing there.
        ssl_context: For ``wss``; ``None`` for Python's default.
        proxy_of: The proxy on the way to a URL, if there is one.
        timeout: Longest wait of a check, in seconds.
        endpoint: The gateway.
        key: What to sign with.
        key_ids: The ids of all keys that are given.
        private: Whether the gateway's name resolves to private addresses only.
    """

    environ: Mapping[str, str]
    env_file: pathlib.Path
    ssl_context: ssl.SSLContext | None
    proxy_of: Callable[[str], tuple[str, int] | None]
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
        from_file = read_env_file(settings.env_file)
        values = {**from_file, **settings.environ}
        config = ClientConfig.from_env(values)
        settings.endpoint, settings.key = Endpoint(config.url, settings.ssl_context), config.key
        settings.proxy_of(settings.endpoint.url)
    except ConfigError as exc:
        return failure(Exit.SETTINGS, str(exc), f"set {URL} and {AUTH_KEYS}; example.env explains them")
    ids = settings.key_ids = tuple(key.key_id for key in parse_keys(values[AUTH_KEYS]))
    others = f", also given: {', '.join(map(str, ids[1:]))}" if ids[1:] else ""
    source = "the environment" if URL in settings.environ else str(settings.env_file)
    endpoint = settings.endpoint
    fact = f"{endpoint.url} from {source}, signing with key id {ids[0]}{others}"
    if endpoint.path == "/" and EXECUTE_API.fullmatch(endpoint.address[0]):
        return warning(fact, "the URL has no stage: take WebSocketUrl from the stack's outputs as it is")
    if fault := keys_fault(settings.env_file, from_file):
        return warning(f"{fact}; {fault}", f"chmod 600 {settings.env_file}")
    return ok(fact)
