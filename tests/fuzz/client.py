"""What a user gives, settings and the file they are in and the gateway's URL; and what comes from there."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from typing import Final, cast

from emissary_lib.client.config import ClientConfig
from emissary_lib.client.endpoint import Endpoint
from emissary_lib.client.env_file import parse_env
from emissary_lib.exceptions import ConfigError, LinkClosedError
from emissary_lib.transport.bytestream import ByteStream
from emissary_lib.transport.deadline import Deadline
from emissary_lib.transport.websocket import MAX_INCOMING, WebSocketTransport
from functions.common.config import connect_settings, default_settings, disconnect_settings, log_level
from functions.relay.settings import RelaySettings
from tests.fuzz.entry import as_text

_READERS: Final[tuple[Callable[[dict[str, str]], object], ...]] = (
    ClientConfig.from_env,
    connect_settings,
    default_settings,
    disconnect_settings,
    RelaySettings.from_env,
    log_level,
)


parse_env("A=1")  # loads what it needs now, where nobody counts lines


def env_file(data: bytes) -> None:
    """And each reader of settings on what the file has."""
    found = parse_env(as_text(data))
    assert all(name.startswith("EMISSARY_") and fault for name, fault in found.faults.items())
    assert not found.faults.keys() & found.values.keys()
    _read_settings(dict(found.values))


def settings(data: bytes) -> None:
    """``NAME=value`` with anything in the values, as an environment may have it."""
    lines = (line.partition("=") for line in as_text(data).split("\n"))
    _read_settings({name: value for name, _equals, value in lines})


def _read_settings(values: dict[str, str]) -> None:
    for name in ("EMISSARY_AUTH_KEYS_SECRET", "EMISSARY_AUTH_KEYS_FILE", "EMISSARY_ENV_FILE"):
        values.pop(name, None)  # what they name is elsewhere, and not to be opened by chance
    for read in _READERS:
        faults: tuple[str, ...] = ("none",)
        try:
            read(values)
        except ConfigError as error:
            faults = error.faults
        assert faults
        assert all(faults)


def url(data: bytes) -> None:
    try:
        endpoint = Endpoint(as_text(data))
    except ConfigError:
        return
    assert Endpoint(endpoint.url) == endpoint
    host, port = endpoint.address
    assert host
    assert 0 < port < 65_536
    assert endpoint.host
    assert endpoint.path.startswith("/")
    assert endpoint.callback_url.startswith("https://" if endpoint.secure else "http://")
    assert endpoint.secure or host in ("localhost", "::1") or host.startswith("127.") or ":" in host


class _Cut:
    """As :class:`ByteStream`: gives what is there in pieces of any size, and then the end."""

    def __init__(self, data: bytes, most: Callable[[], int]) -> None:
        self._data = data
        self._most = most
        self.reads = 0
        self.written = 0

    def read(self, size: int, _deadline: Deadline) -> bytes:
        self.reads += 1
        size = min(size, self._most())
        piece, self._data = self._data[:size], self._data[size:]
        return piece

    def write(self, data: bytes, _deadline: Deadline) -> None:
        self.written += len(data)

    def shutdown(self) -> None:
        self._data = b""


def _messages(data: bytes, most: Callable[[], int]) -> list[bytes]:
    """Each message, and the error at the end."""
    stream, found = _Cut(data, most), list[bytes]()
    transport = WebSocketTransport(cast(ByteStream, stream), "wss://hostile")
    with contextlib.suppress(LinkClosedError):
        while True:
            found.append(transport.recv(None))
            assert len(found[-1]) <= MAX_INCOMING
    assert stream.reads <= 2 * len(data) + 2
    assert stream.written <= 7 * len(data)  # it answers, mask and all, and does not amplify beyond that
    return found


def websocket_frames(data: bytes) -> None:
    chance = random.Random(data)
    whole = _messages(data, lambda: 1 << 20)
    assert _messages(data, lambda: chance.choice((1, 1, 2, 3, 100))) == whole
    assert sum(map(len, whole)) <= len(data)
