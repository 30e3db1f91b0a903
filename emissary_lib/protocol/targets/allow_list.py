"""Targets, and the allow-list that says which of them may be dialled.

The list is asked twice: before DNS, by name or literal address, and after DNS, by the address that is about
to be dialled. The first keeps names off the list from being resolved at all; the second keeps a name on
the list from leading to the relay itself or to the cloud's metadata service.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Any, Final

from emissary_lib.protocol.errors import ConfigError
from emissary_lib.protocol.record import Record
from emissary_lib.protocol.targets.addresses import (
    IPAddress,
    IPNetwork,
    TargetError,
    canonical_host,
    literal,
    normalise_address,
    unwrap_network,
    why_refused,
)

__all__ = ["SHARED_TARGET", "AllowList", "Rule", "Target", "TargetError", "canonical_host"]

_PORT_MAX: Final = 65_535

#: Names that always mean this machine. Source: RFC 6761 section 6.3.
_LOCALHOST: Final = "localhost"


class Target(Record):
    """A host and port the relay is asked to connect to; always in canonical form, so ``==`` can be trusted.

    Attributes:
        host: From :func:`canonical_host`: a name, or an address without brackets.
        port: 1 to 65535.

    Raises:
        TargetError: If host or port is not well formed.
    """

    host: str
    port: int

    def __post_init__(self) -> None:
        whole = isinstance(self.port, int) and not isinstance(self.port, bool)
        if not whole or not 1 <= self.port <= _PORT_MAX:
            raise TargetError(f"port {self.port!r} is not a number from 1 to {_PORT_MAX}")
        object.__setattr__(self, "host", canonical_host(self.host))

    @classmethod
    def parse(cls, target: str | tuple[str, int]) -> Target:
        """Read ``host:port``, ``[v6]:port`` or ``(host, port)``.

        Raises:
            TargetError: If it is none of these.

        Example:
            >>> Target.parse("DB.internal:5432"), str(Target.parse(("::1", 5432)))
            (Target(host='db.internal', port=5432), '[::1]:5432')
        """
        if isinstance(target, tuple) and len(target) == 2:
            return cls(*target)
        if not isinstance(target, str):
            raise TargetError(f"{target!r} is no target; write host:port, or a tuple of host and port")
        if "://" in target:  # which is not shown: a password may be in it
            raise TargetError("a URL is no target; write its host and port alone, such as db.internal:5432")
        host, colon, port = target.rpartition(":")
        if not colon or port.endswith("]"):
            raise TargetError(f"{target!r} has no port; write host:port, such as db.internal:5432")
        if ":" in host and not (host.startswith("[") and host.endswith("]")):
            raise TargetError(f"{target!r} is ambiguous; write an IPv6 address in brackets: [::1]:5432")
        return cls(host, _port(port, target))

    @property
    def address(self) -> IPAddress | None:
        """The literal address, or None when the host is a name."""
        return literal(self.host)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


#: What a dialer asks for to get a shared session (docs/protocol.md 11.1-1). RFC 6761 has it that no such host
#: exists. Who asks for it, or for another port of the name, asks no allow-list.
SHARED_TARGET: Final = Target("emissary.mux.invalid", 1)


def _port(text: str, source: str) -> int:
    if text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= _PORT_MAX:
        return int(text)
    raise TargetError(f"{source!r}: port {text!r} is not a number from 1 to {_PORT_MAX}")


class Rule(Record):
    """One entry of the allow-list.

    Attributes:
        host: One of: a canonical host; ``*.suffix``, for names at any depth below the suffix but not the
            suffix itself; a network such as ``10.0.0.0/16``, for literal addresses only.
        ports: Ranges, both ends included.
    """

    host: str
    ports: tuple[tuple[int, int], ...]

    @property
    def network(self) -> IPNetwork | None:
        """The network of a CIDR rule; None for the other kinds."""
        return ipaddress.ip_network(self.host) if "/" in self.host else None

    def matches_port(self, port: int) -> bool:
        """Whether ``port`` is in one of the ranges."""
        return any(low <= port <= high for low, high in self.ports)

    def lists(self, host: str, port: int) -> bool:
        """Whether the rule names this very host, letter by letter, and the port."""
        return self.host == host and self.matches_port(port)

    def matches(self, target: Target) -> bool:
        """Whether the rule admits the target, before any thought of dangerous addresses."""
        if not self.matches_port(target.port):
            return False
        network = self.network
        if network is not None:
            return target.address is not None and target.address in network
        if self.host.startswith("*."):
            return target.address is None and target.host.endswith(self.host[1:])
        return target.host == self.host

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        ports = (str(low) if low == high else f"{low}-{high}" for low, high in self.ports)
        return f"{host}:{','.join(ports)}"


class AllowList(Record):
    """The targets that may be dialled. An empty list permits none. Immutable, so safe in any thread."""

    rules: tuple[Rule, ...] = ()

    @classmethod
    def parse(cls, text: str) -> AllowList:
        """Read the JSON of ``EMISSARY_ALLOWED_PROXY_TARGETS``.

        Args:
            text: A list of objects (or one object) with ``host`` (a name, an address, ``*.suffix`` or a
                CIDR) and ``port`` (a number, a range as text such as ``"5432-5440"``, or a list of both).

        Raises:
            ConfigError: Lists every fault at once.

        Example:
            >>> print(*AllowList.parse('[{"host": "DB.internal", "port": [3306, "5432-5440"]}]').rules)
            db.internal:3306,5432-5440
        """
        import json  # a dialer, which has no list, does not load it

        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ConfigError(
                f'the allow-list is not JSON ({error}); want [{{"host": "db.internal", "port": 5432}}]'
            ) from error
        items = [document] if isinstance(document, dict) else document
        if not isinstance(items, list):
            raise ConfigError('the allow-list is not a list; want [{"host": "db.internal", "port": 5432}]')
        rules: list[Rule] = []
        faults: list[str] = []
        for position, item in enumerate(items, start=1):
            try:
                rules.append(_parse_rule(item))
            except ConfigError as error:
                faults.extend(f"allowed target number {position}: {fault}" for fault in error.faults)
        if faults:
            raise ConfigError(*faults)
        return cls(tuple(rules))

    def permits(self, target: Target) -> bool:
        """Whether the target may be resolved and dialled: the question to ask before DNS.

        A CIDR admits literal addresses only; a name needs a rule for names. An address that is dangerous to
        dial (loopback, link-local, metadata, unspecified, multicast) must be listed itself.
        """
        address = target.address
        if address is not None and why_refused(address) is not None:
            return self._lists(target.host, target.port)
        return any(rule.matches(target) for rule in self.rules)

    def permits_address(self, target: Target, address: str) -> bool:
        """Whether the target may be dialled at this address: the question to ask after DNS.

        Args:
            target: What the dialer asked for.
            address: Numeric, as the resolver gave it; dial exactly this one.

        Returns:
            False also for a target that :meth:`permits` refuses, for a literal target with another
            address, and for a text that is no address. A dangerous address is accepted where that address
            and port are listed themselves; loopback also where the name ``localhost`` is.
        """
        resolved = normalise_address(address)
        if resolved is None or not self.permits(target):
            return False
        if target.address is not None:
            return resolved == target.address
        if why_refused(resolved) is None or self._lists(str(resolved), target.port):
            return True
        is_localhost = target.host == _LOCALHOST or target.host.endswith("." + _LOCALHOST)
        return is_localhost and resolved.is_loopback and self._lists(target.host, target.port)

    def _lists(self, host: str, port: int) -> bool:
        return any(rule.lists(host, port) for rule in self.rules)


def _parse_rule(item: Any) -> Rule:
    if not isinstance(item, dict):
        raise ConfigError('not an object; want {"host": "db.internal", "port": 5432}')
    faults: list[str] = []
    host, ports = "", tuple[tuple[int, int], ...]()
    try:
        host = _parse_host(item.get("host"))
    except ConfigError as error:
        faults.extend(error.faults)
    try:
        ports = tuple(_parse_ports(item.get("port")))
    except ConfigError as error:
        faults.extend(error.faults)
    unknown = sorted(set(item) - {"host", "port"})
    if unknown:
        # A misspelt restriction must not be dropped in silence.
        faults.append(f"unknown member {', '.join(map(repr, unknown))}; only host and port are known")
    if faults:
        raise ConfigError(*faults)
    return Rule(host, ports)


def _parse_host(host: Any) -> str:
    if not isinstance(host, str):
        raise ConfigError('"host" is not a text; want a name, an address, "*.suffix" or a CIDR')
    if "/" in host:
        try:
            return str(unwrap_network(ipaddress.ip_network(host)))
        except ValueError as error:
            raise ConfigError(f"host {host!r} is not a network: {error}") from None
    if not host.startswith("*"):
        return canonical_host(host)
    suffix = canonical_host(host[2:]) if host.startswith("*.") and len(host) > 2 else None
    if suffix is None or literal(suffix) is not None:
        raise ConfigError(f'host {host!r} is not "*." and a name; for addresses write a CIDR, as 10.0.0.0/16')
    return "*." + suffix


def _parse_ports(port: Any) -> Iterator[tuple[int, int]]:
    entries = port if isinstance(port, list) else [port]
    if not entries:
        raise ConfigError('"port" is an empty list; want a number, "low-high", or a list of these')
    for entry in entries:
        if isinstance(entry, str):
            low, dash, high = entry.replace(" ", "").partition("-")
            first = _port(low, entry)
            last = _port(high, entry) if dash else first
            if first > last:
                raise ConfigError(f"port range {entry!r} runs backwards")
            yield first, last
        elif isinstance(entry, int) and not isinstance(entry, bool) and 1 <= entry <= _PORT_MAX:
            yield entry, entry
        else:
            raise ConfigError(f'"port" {entry!r} is not a number from 1 to {_PORT_MAX}, nor "low-high"')
