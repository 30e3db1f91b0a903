"""Proxies on the way to the gateway: which one, as the environment says, and the way through it.

The environment is read as curl reads it (curl(1), "ENVIRONMENT"; everything.curl.dev, "Proxy environment
variables"): ``https_proxy``, then ``all_proxy``, small letters first; no scheme means ``http://``. This very
machine is never reached through a proxy. HTTP proxies are asked with CONNECT (RFC 9110 section 9.3.6) and
Basic authentication (RFC 7617); SOCKS is the package python-socks'.
"""

from __future__ import annotations

import base64
import ipaddress
import os
import socket
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import unquote, urlsplit

from emissary_lib.exceptions import ConfigError, PackageError
from emissary_lib.protocol.record import Record, hidden
from emissary_lib.protocol.wire.text import clean

#: Variables that name a proxy, the first that is there counts, even if it is empty: then there is none.
VARIABLES: Final = {
    True: ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"),
    False: ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"),
}

#: Variables that name who is reached without one.
EXCEPTIONS: Final = ("no_proxy", "NO_PROXY")

#: Schemes that are spoken, and their ports where a URL has none.
_PORTS: Final = {"http": 80, "socks4": 1080, "socks4a": 1080, "socks5": 1080, "socks5h": 1080}

#: What asks a proxy wants for credentials with (RFC 9110 section 15.5.8).
_CREDENTIALS_WANTED: Final = 407


class ProxyError(OSError):
    """The proxy was reached, but gives no way to the gateway; the text says what to do."""


class Proxy(Record):
    """A proxy.

    Attributes:
        scheme: ``http``, ``socks4``, ``socks4a``, ``socks5`` or ``socks5h``; with an ``a`` or ``h``, names
            are looked up by the proxy.
        host: Its name or address.
        port: Its port.
        user: For its authentication; empty for none.
        password: Likewise.
        variable: The variable that names it.
    """

    scheme: str
    host: str
    port: int
    user: str = hidden(default="")
    password: str = hidden(default="")
    variable: str = ""

    def __str__(self) -> str:
        """As a URL, without password."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        user = f"{self.user}:***@" if self.password else f"{self.user}@" if self.user else ""
        return f"{self.scheme}://{user}{host}:{self.port}"

    @property
    def address(self) -> tuple[str, int]:
        """Host and port to connect to."""
        return self.host, self.port


def find_proxy(url: str, environ: Mapping[str, str] | None = None) -> Proxy | None:
    """The proxy on the way to a gateway; ``None`` if there is none.

    Args:
        url: ``wss://...`` or ``ws://...``.
        environ: The environment; ``None`` for the process's.

    Raises:
        ConfigError: The variable names no proxy that can be used.
    """
    environ = os.environ if environ is None else environ
    parts = urlsplit(url)
    host, secure = parts.hostname or "", parts.scheme == "wss"
    for name in VARIABLES[secure]:
        if (value := environ.get(name)) is not None:
            value = value.strip()
            if not value or _is_excepted(host, parts.port or (443 if secure else 80), environ):
                return None
            return _parse(value, name)
    return None


def _parse(value: str, variable: str) -> Proxy:
    # Not the value itself: a password may be in it.
    fault = f"{variable} is no URL of a proxy; want http://host:port or socks5h://host:port"
    try:
        parts = urlsplit(value if "://" in value else f"http://{value}")
        scheme = {"socks": "socks5"}.get(parts.scheme, parts.scheme)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ConfigError(fault) from None
    if scheme == "https":
        raise ConfigError(
            f"{variable} names a proxy to which TLS is spoken (https://), which is not supported; "
            "if it takes plain HTTP, as most do, write http://"
        )
    if scheme not in _PORTS:
        raise ConfigError(f"{variable}: proxies of the kind {scheme}:// are not supported; {fault}")
    if not host or port == 0 or any(each.isspace() or not each.isprintable() for each in value):
        raise ConfigError(fault)
    return Proxy(
        scheme,
        host,
        port or _PORTS[scheme],
        unquote(parts.username or ""),
        unquote(parts.password or ""),
        variable,
    )


def _is_excepted(host: str, port: int, environ: Mapping[str, str]) -> bool:
    address = _address(host)
    if host == "localhost" or host.endswith(".localhost") or (address is not None and address.is_loopback):
        return True
    text = next((environ[name] for name in EXCEPTIONS if environ.get(name)), "")
    return any(_covers(entry, host, address, port) for entry in text.replace(",", " ").split())


def _covers(
    entry: str, host: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address | None, port: int
) -> bool:
    if entry == "*":
        return True
    if address is not None:
        try:
            return address in ipaddress.ip_network(entry.strip("[]"), strict=False)
        except ValueError:
            pass
    name, colon, number = entry.rpartition(":")
    if colon and number.isdigit() and not (name.count(":") and not name.endswith("]")):
        if int(number) != port:
            return False
        entry = name
    entry = entry.strip("[]").lower().removeprefix("*").strip(".")
    host = host.lower().rstrip(".")
    return bool(entry) and (host == entry or (address is None and host.endswith("." + entry)))


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def ask_http_proxy(
    sock: socket.socket, proxy: Proxy, address: tuple[str, int], read_line: Callable[[], bytes]
) -> None:
    """Have an HTTP proxy connect to ``address``; then ``sock`` leads there.

    Args:
        sock: Connected to the proxy.
        proxy: Which.
        address: Host and port to reach.
        read_line: Reads one line of the answer's head, bounded in time and size.

    Raises:
        ProxyError: It refuses.
        OSError: The connection broke.
        TimeoutError: There was no answer in time.
    """
    host, port = address
    authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    head = f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n"
    if proxy.user or proxy.password:
        pair = base64.b64encode(f"{proxy.user}:{proxy.password}".encode()).decode("ascii")
        head += f"Proxy-Authorization: Basic {pair}\r\n"
    sock.sendall((head + "\r\n").encode("utf-8"))
    first = read_line().decode("latin-1").rstrip("\r\n")
    protocol, _, rest = first.partition(" ")
    if not protocol.startswith("HTTP/1.") or not (rest[:3].isascii() and rest[:3].isdigit()):
        raise ProxyError(
            f"what answers at the proxy {proxy} speaks no HTTP; check {proxy.variable} (a SOCKS proxy is "
            "written socks5h://host:port)"
        )
    while read_line().strip():
        pass
    status = int(rest[:3])
    if status == _CREDENTIALS_WANTED:
        given = "did not accept the user and password" if proxy.user else "wants a user and a password"
        raise ProxyError(
            f"the proxy {proxy} {given}: write http://user:password@host:port in {proxy.variable}"
        )
    if not 200 <= status < 300:
        raise ProxyError(
            f"the proxy {proxy} ({proxy.variable}) refused a connection to {authority}: {clean(rest)}; ask "
            "whoever runs it to let that through"
        )


def check_package(proxy: Proxy) -> None:
    """See that what speaks to the proxy is there.

    Raises:
        PackageError: It is a SOCKS proxy, and the package python-socks is not installed.
    """
    if proxy.scheme == "http":
        return
    try:
        import python_socks.sync  # noqa: F401 - not needed by the rest of the library
    except ImportError as exc:
        raise PackageError(
            f"{proxy.variable} names a SOCKS proxy, which needs the package python-socks, and that is not "
            "installed: pip install 'emissary-lib[socks]'"
        ) from exc


def connect_through_socks(proxy: Proxy, address: tuple[str, int], timeout: float | None) -> socket.socket:
    """A connection to ``address`` through a SOCKS proxy.

    Args:
        proxy: Which.
        address: Host and port to reach.
        timeout: Seconds for each step; ``None`` for the package's own limit.

    Raises:
        PackageError: See :func:`check_package`.
        ProxyError: It cannot be reached, or refuses.
        TimeoutError: There was no answer in time.
    """
    check_package(proxy)
    import python_socks
    from python_socks.sync import Proxy as SocksProxy

    kind = (
        python_socks.ProxyType.SOCKS5 if proxy.scheme.startswith("socks5") else python_socks.ProxyType.SOCKS4
    )
    by_proxy = proxy.scheme in ("socks4a", "socks5h")
    way = SocksProxy(kind, proxy.host, proxy.port, proxy.user or None, proxy.password or None, rdns=by_proxy)
    try:
        sock: socket.socket = way.connect(*address, timeout=timeout)
    except python_socks.ProxyTimeoutError as exc:
        raise TimeoutError("timed out") from exc
    except (python_socks.ProxyError, python_socks.ProxyConnectionError) as exc:
        raise ProxyError(
            f"the proxy {proxy} ({proxy.variable}) gives no way to {address[0]}: {clean(str(exc))}"
        ) from exc
    return sock
