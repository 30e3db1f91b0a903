"""Where the gateway is."""

from __future__ import annotations

import contextlib
import ipaddress
import ssl
from urllib.parse import urlsplit

from emissary_lib.exceptions import ConfigError, PackageError
from emissary_lib.protocol.auth.macs import signed_host
from emissary_lib.protocol.record import Record, hidden
from emissary_lib.transport import trust
from emissary_lib.transport.proxy import check_package, find_proxy

_DEFAULT_PORTS = {"ws": 80, "wss": 443}


class Endpoint(Record):
    """A WebSocket API's stage.

    Attributes:
        url: ``wss://{api}.execute-api.{region}.amazonaws.com/{stage}``, or ``ws://`` for the local cloud:
            that is taken for this very machine alone (127.0.0.0/8, ``::1``, ``localhost``).
        ssl_context: For ``wss``; ``None`` for one that checks certificate and name.
        ca_file: PEM file of authorities that it trusts beside the usual ones.

    Raises:
        ConfigError: The URL is none of a WebSocket, or would go to another machine unencrypted; or no
            authority is in the file.
    """

    url: str
    ssl_context: ssl.SSLContext | None = hidden(default=None)
    ca_file: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.url, str) and any(map(str.isspace, self.url)):
            raise ConfigError(
                f"the gateway's URL{_shown(self.url)} has a blank in it; take WebSocketUrl from the stack's "
                "outputs, and nothing behind it"
            )
        try:
            parts = urlsplit(self.url)
            usable = parts.scheme in _DEFAULT_PORTS and parts.hostname and parts.port != 0
        except (ValueError, AttributeError):  # a port or an address in brackets that is none; no text at all
            usable = None
        # A space is printable, and no other separator is.
        if not usable or not parts.netloc.isprintable() or {" ", "@"} & set(parts.netloc):
            raise ConfigError(
                f"the gateway's URL{_shown(self.url)} is not of the form wss://host/stage; "
                "take WebSocketUrl from the stack's outputs"
            )
        if parts.query or parts.fragment:
            raise ConfigError(
                f"the gateway's URL{_shown(self.url)} has something behind its stage; take WebSocketUrl from "
                "the stack's outputs, without ? and #"
            )
        if parts.scheme == "ws" and not _is_loopback(parts.hostname or ""):
            raise ConfigError(
                f"the gateway's URL {self.url!r} is not encrypted: ws:// is for a local cloud on this "
                "machine (127.0.0.1, ::1, localhost) alone; write wss://, as WebSocketUrl of the stack's "
                "outputs has it"
            )
        # Written as the WebSocket library takes it: it knows the scheme in small letters only.
        object.__setattr__(self, "url", parts.geturl())
        if self.ca_file is not None:
            trust.client_context(self.ca_file)

    @property
    def host(self) -> str:
        """What the MACs are bound to (docs/protocol.md section 7.2)."""
        return signed_host(self.authority)

    @property
    def authority(self) -> str:
        """What is sent as ``Host``: with the port, if the URL has one."""
        return urlsplit(self.url).netloc

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
        scheme = "https" if self.secure else "http"
        return f"{scheme}://{self.authority}{urlsplit(self.url).path.rstrip('/')}"

    def tls(self) -> ssl.SSLContext | None:
        """What to speak TLS with; ``None`` without TLS."""
        return (self.ssl_context or trust.client_context(self.ca_file)) if self.secure else None

    def load(self) -> None:
        """Load the extras that :meth:`tls` and the way to the gateway need, as far as they are there."""
        if self.secure and self.ssl_context is None:
            trust.find_truststore()
        with contextlib.suppress(ConfigError, PackageError):  # a dial says so
            if proxy := find_proxy(self.url):
                check_package(proxy)

    @property
    def secure(self) -> bool:
        """Whether TLS is spoken."""
        return urlsplit(self.url).scheme == "wss"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _shown(url: object) -> str:
    """A wrong URL as an error has it: nothing of what is none, or has a password, as a key by mistake."""
    return "" if isinstance(url, str) and ("://" not in url or "@" in url) else f" {url!r}"
