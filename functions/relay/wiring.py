"""The relay's composition root: environment -> settings -> adapters -> relay, once per environment."""

from __future__ import annotations

import functools
import ssl
from collections.abc import Mapping
from typing import Final

from emissary_lib.protocol.errors import ConfigError
from emissary_lib.protocol.targets.allow_list import Target
from emissary_lib.transport import happy_eyeballs
from emissary_lib.transport.deadline import Deadline
from emissary_lib.transport.websocket import WebSocketTransport, connect
from functions.common import config
from functions.common.adapters.apigateway import PostToConnection, callback_endpoint
from functions.common.adapters.emf import use_emf
from functions.common.adapters.json_logging import use_json
from functions.common.adapters.sigv4 import environment_credentials
from functions.common.adapters.trust import trust
from functions.relay.connector import Connected, connect_target
from functions.relay.resolver import resolver
from functions.relay.service import Relay
from functions.relay.settings import RelaySettings

_IN_LAMBDA: Final = "AWS_LAMBDA_RUNTIME_API"


class RelayFunction:
    """The relay of one execution environment.

    Args:
        environ: Environment variables.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def warm(self) -> None:
        """Inside Lambda: set up the log and build everything. Elsewhere: nothing.

        Wrong settings are left for the first event to tell, so that the log has a line about them.
        """
        if _IN_LAMBDA not in self._environ:
            return
        use_json(config.log_level(self._environ), function=self._environ.get("AWS_LAMBDA_FUNCTION_NAME", ""))
        use_emf(self._environ.get(config.SERVICE, ""))
        try:
            _ = self.relay
        except ConfigError:
            pass

    @functools.cached_property
    def _settings(self) -> RelaySettings:
        return RelaySettings.from_env(self._environ)

    @functools.cached_property
    def _tls(self) -> ssl.SSLContext:
        return trust(self._environ)

    @functools.cached_property
    def relay(self) -> Relay:
        """The relay.

        Raises:
            ConfigError: Settings are wrong.
        """
        settings = self._settings
        resolve = resolver(settings.dns_servers)
        endpoint = callback_endpoint(settings.domain, settings.stage, self._environ)

        def dial_back(headers: Mapping[str, str], deadline: Deadline) -> WebSocketTransport:
            tls = self._tls if settings.websocket_url.startswith("wss:") else None
            return connect(settings.websocket_url, headers=headers, deadline=deadline, ssl_context=tls)

        def connect_to(target: Target, deadline: Deadline) -> Connected:
            return connect_target(target, settings.allow, resolve, deadline)

        poster = PostToConnection(
            endpoint,
            region=settings.region,
            credentials=environment_credentials(self._environ),
            tls=self._tls if endpoint.startswith("https:") else None,
            connect=happy_eyeballs.connect,  # a VPC may have a way out for one kind of address only
        )
        return Relay(dial_back, connect_to, poster, grace=settings.grace, probing=settings.probing)
