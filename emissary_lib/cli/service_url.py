"""URLs of databases, such as ``DATABASE_URL``: which servers one names, and the same through a local port."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Sequence
from typing import Final

from emissary_lib.protocol.record import Record
from emissary_lib.protocol.targets.addresses import TargetError, canonical_host, literal
from emissary_lib.protocol.targets.allow_list import Target


class LocalPort(Record):
    """A local address that leads to a target.

    Attributes:
        target: Where it leads.
        host: A literal address of this machine.
        port: The port there.
    """

    target: Target
    host: str
    port: int


#: Ports that a URL without one means, by its scheme.
_DEFAULT_PORTS: Final = {
    "cockroachdb": 26257,
    "mariadb": 3306,
    "mongodb": 27017,
    "mssql": 1433,
    "mysql": 3306,
    "mysql2": 3306,
    "oracle": 1521,
    "pgsql": 5432,
    "postgis": 5432,
    "postgres": 5432,
    "postgresql": 5432,
    "redis": 6379,
    "rediss": 6379,
    "sqlserver": 1433,
    "trilogy": 3306,
    "valkey": 6379,
    "valkeys": 6379,
}

#: Schemes, and drivers behind their ``+``, that may stand for libpq, which alone knows ``hostaddr``.
_LIBPQ: Final = ("cockroachdb", "pgsql", "postgis", "postgres", "postgresql")
_LIBPQ_DRIVERS: Final = ("", "psycopg", "psycopg2", "psycopg2cffi", "psycopg_async")

_URL: Final = re.compile(
    r"(?P<java>jdbc:)?(?P<scheme>[a-z][a-z0-9.-]*)(?:\+(?P<driver>[a-z0-9_.+-]*))?://"
    r"(?P<user>[^/?#]*@)?(?P<hosts>[^/?#@]*)(?P<path>[^?]*)(?:\?(?P<query>.*))?",
    re.IGNORECASE | re.DOTALL,
)

#: One host of a list: an address in brackets, or a name, and perhaps a port.
_HOST_AND_PORT: Final = re.compile(r"(\[[^\]]*\]|[^:]*)(?::([0-9]*))?")

#: Between the values of a parameter that has several.
_COMMA: Final = re.compile(",|%2C", re.IGNORECASE)


class _Server(Record):
    """One server that a URL names.

    Attributes:
        host: As it is written.
        attached: The port behind it, as it is written; mostly empty where a parameter has the ports.
        port: The port that is meant; None if that cannot be told.
        address: libpq's ``hostaddr``, which spares it looking up the host.
    """

    host: str
    attached: str
    port: int | None
    address: str


class ServiceUrl:
    """A URL that names one server or several, in its authority or in libpq's parameters ``host``, ``port``.

    Args:
        url: For example ``postgresql+psycopg://app@db.internal/app?sslmode=verify-full``.

    Raises:
        ValueError: It is no URL with an authority.
    """

    def __init__(self, url: str) -> None:
        match = _URL.fullmatch(url)
        if match is None:
            raise ValueError("no URL with an authority")
        self._url = url
        self._before = url[: match.start("hosts")]
        self._path = match["path"]
        self._parameters = [] if match["query"] is None else match["query"].split("&")
        scheme = match["scheme"].lower()
        #: Whether libpq may be who reads it.
        self.for_libpq: Final = (
            not match["java"] and scheme in _LIBPQ and (match["driver"] or "").lower() in _LIBPQ_DRIVERS
        )
        self._by_parameter = any(self._raw("host"))
        self._ports_by_parameter = any(self._raw("port"))
        self._servers = self._read_servers(match["hosts"], _DEFAULT_PORTS.get(scheme))

    def parameter(self, name: str) -> str:
        """The value of a parameter, decoded; empty if there is none."""
        return urllib.parse.unquote(",".join(self._raw(name)))

    @property
    def misled_by_hostaddr(self) -> bool:
        """Whether an address in ``PGHOSTADDR``, of this machine, would lead libpq astray.

        It takes the place of the address of whatever host the URL names, and is refused beside several.
        """
        if not self.for_libpq or any(self._raw("hostaddr")):
            return False
        return len(self._servers) > 1 or not _is_local(self._servers[0].host)

    def through(self, ports: Sequence[LocalPort], *, keep_name: bool) -> str | None:
        """The same URL, through the local ports that lead to its servers; all else is kept to the letter.

        Args:
            ports: What there is.
            keep_name: For libpq, which is to verify the name in the certificate: the host stays as it is, and
                ``hostaddr`` has the address.

        Returns:
            None if none of them leads to a server that it names.
        """
        found = [_leading_to(server, ports) for server in self._servers]
        if not any(found):
            return None
        pairs = list(zip(self._servers, found, strict=True))
        by_address = (keep_name and self.for_libpq) or any(server.address for server in self._servers)
        in_query = self._ports_by_parameter or (
            self._by_parameter and not any(server.attached for server in self._servers)
        )
        items = []
        for server, port in pairs:
            host = server.host if port is None or by_address else port.host
            number = server.attached if port is None or in_query else str(port.port)
            bracketed = f"[{host}]" if ":" in host and not host.startswith("[") and number else host
            items.append(f"{bracketed}:{number}" if number else bracketed)
        changed = ServiceUrl(self._url)
        hosts = self._url[len(self._before) :].removesuffix(self._rest())
        if self._by_parameter:
            changed._put("host", items)
        else:
            hosts = ",".join(items)
        if in_query:
            numbers = [str(port.port if port else server.port or "") for server, port in pairs]
            changed._put("port", numbers)
        if by_address:
            changed._put("hostaddr", [port.host if port else server.address for server, port in pairs])
        return self._before + hosts + changed._rest()

    def _read_servers(self, authority: str, default: int | None) -> list[_Server]:
        written = [_HOST_AND_PORT.fullmatch(item) for item in authority.split(",")]
        items = self._raw("host") if self._by_parameter else authority.split(",")
        ports = self._raw("port")
        if not ports and self._by_parameter and len(written) == 1 and written[0]:
            ports = [written[0][2] or ""]
        addresses = self._raw("hostaddr")
        servers = []
        for number, item in enumerate(items):
            split = _HOST_AND_PORT.fullmatch(item)  # not an IPv6 address without brackets
            host, attached = (split[1], split[2] or "") if split else (item, "")
            text = _nth(ports, number) or attached
            port = default if not text else int(text) if text.isdigit() and len(text) <= 5 else None
            servers.append(_Server(host, attached, port, _nth(addresses, number)))
        return servers

    def _raw(self, name: str) -> list[str]:
        """The values of a parameter, which may have several, as they are written."""
        values = [
            value for key, _, value in (each.partition("=") for each in self._parameters) if key == name
        ]
        return [item for value in values for item in _COMMA.split(value)]

    def _put(self, name: str, values: Sequence[str]) -> None:
        """Give a parameter these values: as many to each of its places as were there."""
        left = list(values)
        places = [at for at, each in enumerate(self._parameters) if each.partition("=")[0] == name]
        for at in places:
            count = len(left) if at == places[-1] else len(_COMMA.split(self._parameters[at]))
            self._parameters[at] = f"{name}={','.join(left[:count])}"
            del left[:count]
        if not places:
            self._parameters.append(f"{name}={','.join(values)}")

    def _rest(self) -> str:
        return self._path + ("?" + "&".join(self._parameters) if self._parameters else "")


def _nth(values: Sequence[str], number: int) -> str:
    """One of the values that a parameter has for each host, or the only one, which is for all."""
    if len(values) == 1:
        return values[0]
    return values[number] if number < len(values) else ""


def _leading_to(server: _Server, ports: Sequence[LocalPort]) -> LocalPort | None:
    hosts = {_canonical(server.host), _canonical(server.address)}
    return next(
        (port for port in ports if port.target.port == server.port and port.target.host in hosts), None
    )


def _canonical(host: str) -> str:
    """The host in the form that targets have; empty if it is none, such as a socket's directory."""
    try:
        return canonical_host(urllib.parse.unquote(host))
    except TargetError:
        return ""


def _is_local(host: str) -> bool:
    """Whether it is this machine: by loopback, by a Unix socket, or by saying nothing."""
    canonical = _canonical(host)
    address = literal(canonical) if canonical else None
    return not canonical or canonical == "localhost" or (address is not None and address.is_loopback)
