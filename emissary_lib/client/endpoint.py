"""Where the gateway is."""

from __future__ import annotations

import ssl
from urllib.parse import urlsplit

from emissary_lib.exceptions import ConfigError
from emissary_lib.protocol.auth.macs import canonical_authority
from emissary_lib.protocol.record import Record, hidden

_DEFAULT_PORTS = {"ws": 80, "wss": 443}


class Endpoint(Record):
    """A WebSocket API's stage.

    Attributes:
        url: ``wss://{api}.execute-api.{region}.amazonaws.com/{stage}``, or ``ws://`` for the local cloud.
        ssl_context: For ``wss``; ``None`` for Python's default, which checks certificate and name.

    Raises:
        ConfigError: The URL is none of a WebSocket.
    """

    url: str
    ssl_context: ssl.SSLContext | None = hidden(default=None)

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            usable = parts.scheme in _DEFAULT_PORTS and parts.hostname and parts.port != 0
        except ValueError:  # a port that is none, or an address in brackets that is none
            usable = None
        if not usable or "@" in parts.netloc:
            raise ConfigError(
                f"the gateway's URL {self.url!r} is not of the form wss://host/stage; "
                "take WebSocketUrl from the stack's outputs"
            )

    @property
    def host(self) -> str:
        """What the MACs are bound to (docs/protocol.md section 7.2)."""
        parts = urlsplit(self.url)
        return canonical_authority(parts.netloc, scheme_default_port=_DEFAULT_PORTS[parts.scheme])

    @property
    def address(self) -> tuple[str, int]:
        """Host and port to connect to."""
        parts = urlsplit(self.url)
        return parts.hostname or "", parts.port or _DEFAULT_PORTS[parts.scheme]

    @property
    def path(self) -> str:
        """The stage, as a path; with a custom domain it may be empty."""
        return urlsplit(self.url).path or "/"

    @property
    def callback_url(self) -> str:
        """Where ``@connections`` is of this stage, for an operator's own calls."""
        parts = urlsplit(self.url)
        scheme = "https" if self.secure else "http"
        return f"{scheme}://{parts.netloc}{parts.path.rstrip('/')}"

    @property
    def secure(self) -> bool:
        """Whether TLS is spoken."""
        return urlsplit(self.url).scheme == "wss"
