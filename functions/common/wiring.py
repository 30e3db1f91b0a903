"""The composition root: environment -> settings -> adapters -> use cases, built once per environment.

Importing this has no side effect. Inside Lambda :func:`warm` builds everything in the init phase, which has a
full CPU and is not part of anybody's waiting time; elsewhere the first event does.
"""

from __future__ import annotations

import functools
import os
import ssl
import time
from collections.abc import Mapping
from typing import Final

from emissary_lib._version import __version__
from emissary_lib.bridge.limits import NO_LIMITS, Limits
from emissary_lib.bridge.session import RELAY_TIME
from emissary_lib.protocol.constants import GRACE
from emissary_lib.protocol.errors import ConfigError
from emissary_lib.protocol.targets.allow_list import AllowList
from functions.common import config
from functions.common.adapters.apigateway import PostToConnection, callback_endpoint
from functions.common.adapters.clients import Aws
from functions.common.adapters.emf import use_emf
from functions.common.adapters.json_logging import use_json
from functions.common.adapters.keys import LOOK_INTERVAL, PROVEN_INTERVAL, EnvironmentKeys, Secret, SecretKeys
from functions.common.adapters.launcher import LambdaLauncher
from functions.common.adapters.store import DynamoSessionStore
from functions.common.adapters.trust import trust
from functions.common.errors import KeysUnavailableError
from functions.common.events import GatewayEvent
from functions.common.ports import Clock, Entropy, KeySource, PeerLink, RelayLauncher, SessionStore
from functions.common.routes.connect import OnConnect
from functions.common.routes.connect_dialer import ConnectDialer
from functions.common.routes.connect_relay import ConnectRelay
from functions.common.routes.connect_resume import ConnectResume
from functions.common.routes.connections import OnConnections
from functions.common.routes.disconnect import OnDisconnect
from functions.common.routes.door import LaunchAtTheDoor
from functions.common.routes.ending import EndSession
from functions.common.routes.forward import ForwardMessage
from functions.common.routes.health import OnHealth
from functions.common.routes.launching import LaunchRelay
from functions.common.routes.message import OnMessage
from functions.common.routes.opening import Opening
from functions.common.routes.peers import PeerCache
from functions.common.routes.resume import OnResume
from functions.common.short_messages import ShortMessages

#: Lambda sets it; nobody else does.
_IN_LAMBDA: Final = "AWS_LAMBDA_RUNTIME_API"


def on_connect(
    store: SessionStore,
    keys: KeySource,
    clock: Clock,
    *,
    launcher: RelayLauncher,
    allow: AllowList,
    entropy: Entropy,
    server_version: str = __version__,
    limits: Limits = NO_LIMITS,
    relay_time: float = RELAY_TIME,
    allow_fault: str = "",
) -> OnConnect:
    """The use case of ``$connect``."""
    launch = LaunchRelay(launcher, entropy, ShortMessages(store, clock), limits, relay_time)
    door = LaunchAtTheDoor(store, launch, allow, server_version, allow_fault)
    return OnConnect(
        ConnectDialer(store, keys, clock, door),
        ConnectRelay(store, keys, clock, relay_time),
        ConnectResume(store, keys, clock),
    )


def on_message(
    store: SessionStore,
    link: PeerLink,
    *,
    launcher: RelayLauncher,
    keys: KeySource,
    allow: AllowList,
    peers: PeerCache,
    clock: Clock,
    entropy: Entropy,
    server_version: str = __version__,
    limits: Limits = NO_LIMITS,
    relay_time: float = RELAY_TIME,
    grace: float = GRACE,
    allow_fault: str = "",
    nat: bool = True,
) -> OnMessage:
    """The use case of ``$default``."""
    end = EndSession(store, link, clock, grace, nat)
    forward = ForwardMessage(store, link, peers, end)
    short_messages = ShortMessages(store, clock)
    launch = LaunchRelay(launcher, entropy, short_messages, limits, relay_time)
    opening = Opening(store, link, launch, keys, allow, forward, clock, server_version, allow_fault)
    health = OnHealth(store, link, keys, end, limits, server_version, allow_fault)
    resume, connections = OnResume(store, link, end), OnConnections(store, link, end)
    return OnMessage(store, link, forward, opening, resume, end, health, connections, short_messages)


def on_disconnect(
    store: SessionStore,
    link: PeerLink,
    *,
    clock: Clock,
    entropy: Entropy,
    grace: float = GRACE,
    nat: bool = True,
) -> OnDisconnect:
    """The use case of ``$disconnect``."""
    return OnDisconnect(store, link, EndSession(store, link, clock, grace, nat), entropy)


class _Environment:
    """What the functions have in common: one environment's calls to AWS, and its trust.

    Args:
        environ: Environment variables.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._links: list[PostToConnection] = []

    def close(self) -> None:
        """Close every kept connection. Lambda never does: it freezes the environment, then drops it."""
        for link in self._links:
            link.close()
        if "_aws" in vars(self):
            self._aws.close()

    @functools.cached_property
    def _aws(self) -> Aws:
        return Aws(self._environ, self._environ[config.REGION], lambda: self._trust)

    @functools.cached_property
    def _trust(self) -> ssl.SSLContext:
        return trust(self._environ)

    def _new_store(self, table: str, slots: str) -> DynamoSessionStore:
        return DynamoSessionStore(self._aws.dynamodb, table, slots)

    def _new_keys(self, settings: config.KeySettings, look_interval: float) -> KeySource:
        if not settings.secret:
            return EnvironmentKeys(settings.ring)
        secret = Secret(self._aws.secrets_manager, settings.secret)
        return SecretKeys(secret, look_interval=look_interval)

    def _endpoint(self, event: GatewayEvent) -> str:
        return callback_endpoint(event.domain, event.stage, self._environ)

    def _new_link(self, endpoint: str, region: str) -> PostToConnection:
        tls = self._trust if endpoint.startswith("https:") else None
        link = PostToConnection(endpoint, region=region, credentials=self._aws.credentials, tls=tls)
        self._links.append(link)
        return link


class Connect(_Environment):
    """``$connect`` of one environment."""

    def __call__(self, event: GatewayEvent) -> dict[str, str]:
        """Handle an event.

        Raises:
            ConfigError: If settings are wrong; else what :class:`OnConnect` raises.
        """
        return self._use_case(event)

    def warm(self) -> None:
        """Build everything ahead of the first event, and fetch the keys, which every client needs.

        Raises:
            ConfigError: Settings are wrong.
            KeysUnavailableError: The keys cannot be had; the first event tries again.
        """
        _ = self._use_case
        self._keys.keys(0)

    @functools.cached_property
    def _settings(self) -> config.ConnectSettings:
        return config.connect_settings(self._environ)

    @functools.cached_property
    def _keys(self) -> KeySource:
        return self._new_keys(self._settings.keys, LOOK_INTERVAL)

    @functools.cached_property
    def _use_case(self) -> OnConnect:
        settings = self._settings
        store = self._new_store(settings.table, settings.slot_table)
        return on_connect(
            store,
            self._keys,
            time.time,
            launcher=LambdaLauncher(self._aws.lambda_service, settings.relay_function),
            allow=settings.allow,
            entropy=os.urandom,
            limits=Limits(settings.max_sessions, settings.max_sessions_per_key),
            relay_time=settings.relay_time,
            allow_fault=settings.allow_fault,
        )


class Default(_Environment):
    """``$default`` of one environment."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        super().__init__(environ)
        self._use_cases: dict[str, OnMessage] = {}

    def __call__(self, event: GatewayEvent) -> None:
        """Handle an event.

        Raises:
            ConfigError: If settings are wrong; else what :class:`OnMessage` raises.
        """
        endpoint = self._endpoint(event)
        use_case = self._use_cases.get(endpoint)
        if use_case is None:
            use_case = self._use_cases[endpoint] = on_message(
                self._store,
                self._new_link(endpoint, self._settings.region),
                launcher=self._launcher,
                keys=self._keys,
                allow=self._settings.allow,
                peers=PeerCache(),
                clock=time.time,
                entropy=os.urandom,
                limits=Limits(self._settings.max_sessions, self._settings.max_sessions_per_key),
                relay_time=self._settings.relay_time,
                grace=self._settings.grace,
                allow_fault=self._settings.allow_fault,
                nat=self._settings.nat,
            )
        use_case(event)

    def warm(self) -> None:
        """Build everything but the link ahead of the first event, which alone tells the link's address."""
        _ = self._store, self._launcher, self._keys, self._trust

    @functools.cached_property
    def _settings(self) -> config.DefaultSettings:
        return config.default_settings(self._environ)

    @functools.cached_property
    def _store(self) -> DynamoSessionStore:
        return self._new_store(self._settings.table, self._settings.slot_table)

    @functools.cached_property
    def _keys(self) -> KeySource:
        return self._new_keys(self._settings.keys, PROVEN_INTERVAL)

    @functools.cached_property
    def _launcher(self) -> LambdaLauncher:
        return LambdaLauncher(self._aws.lambda_service, self._settings.relay_function)


class Disconnect(_Environment):
    """``$disconnect`` of one environment."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        super().__init__(environ)
        self._use_cases: dict[str, OnDisconnect] = {}

    def __call__(self, event: GatewayEvent) -> None:
        """Handle an event.

        Raises:
            ConfigError: If settings are wrong; else what :class:`OnDisconnect` raises.
        """
        endpoint = self._endpoint(event)
        use_case = self._use_cases.get(endpoint)
        if use_case is None:
            link = self._new_link(endpoint, self._settings.region)
            use_case = self._use_cases[endpoint] = on_disconnect(
                self._store,
                link,
                clock=time.time,
                entropy=os.urandom,
                grace=self._settings.grace,
                nat=self._settings.nat,
            )
        use_case(event)

    def warm(self) -> None:
        """Build everything but the link ahead of the first event, which alone tells the link's address."""
        _ = self._store, self._trust

    @functools.cached_property
    def _settings(self) -> config.DisconnectSettings:
        return config.disconnect_settings(self._environ)

    @functools.cached_property
    def _store(self) -> DynamoSessionStore:
        return self._new_store(self._settings.table, self._settings.slot_table)


def warm(function: Connect | Default | Disconnect, environ: Mapping[str, str]) -> None:
    """Inside Lambda: set up the log and build the function's parts. Elsewhere: nothing.

    Wrong settings, and keys that cannot be fetched, are left for the first event to tell, so that a client
    gets an answer and the log a line, instead of a function that Lambda starts over and over.
    """
    if _IN_LAMBDA not in environ:
        return
    use_json(config.log_level(environ), function=environ.get("AWS_LAMBDA_FUNCTION_NAME", ""))
    use_emf(environ.get(config.SERVICE, ""))
    try:
        function.warm()
    except (ConfigError, KeysUnavailableError):
        pass
