"""Host names and IP addresses in one canonical form each, and the addresses that are dangerous to dial.

One host has many spellings (``127.1``, ``0x7f.1``, ``2130706433``, ``::ffff:127.0.0.1``, ``LOCALHOST.``). A
rule about hosts holds only if every spelling is judged alike, so all are brought to one form first.
"""

from __future__ import annotations

import ipaddress
from typing import Final

from emissary_lib.protocol.errors import ConfigError

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

#: IPv6 prefixes whose last 32 bits are an IPv4 address that is really meant.
#:
#: Source: RFC 4291 section 2.5.5.2 (IPv4-mapped), RFC 6052 section 2.1 (NAT64's well-known prefix, which
#: AWS NAT gateways translate).
_CARRIES_IPV4: Final = (ipaddress.IPv6Network("::ffff:0:0/96"), ipaddress.IPv6Network("64:ff9b::/96"))

#: Networks no relay may dial unless the very address is listed, each with the reason.
#:
#: The Lambda runtime API listens on loopback; credentials come from the link-local addresses
#: 169.254.169.254 (instance metadata) and 169.254.170.2 (container credentials), and from fd00:ec2::254.
#: Linux dials itself when told to dial the unspecified address.
_REFUSED: Final[tuple[tuple[IPNetwork, str], ...]] = tuple(
    (ipaddress.ip_network(network), reason)
    for network, reason in (
        ("0.0.0.0/8", "unspecified"),
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link-local"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("::/96", "reserved"),
        ("fe80::/10", "link-local"),
        ("ff00::/8", "multicast"),
        ("fd00:ec2::/32", "AWS metadata"),
    )
)

_NAME_MAX: Final = 253
_LABEL_MAX: Final = 63
_LABEL_CHARACTERS: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_")


class TargetError(ConfigError):
    """A host, port or target is not well formed; the text says what is wrong and what would be right."""


def canonical_host(host: str) -> str:
    """Bring a host to its one canonical form.

    Names become lower case, without a trailing dot, in ASCII (IDNA 2003). IPv4 addresses become four
    decimal numbers, whatever form of ``inet_aton`` they had (``127.1``, ``0177.0.0.1``, ``0x7f000001``).
    IPv6 addresses become the shortest form, without brackets; those that carry an IPv4 address (mapped, or
    behind NAT64's 64:ff9b::/96) become that address. Doing it twice changes nothing.

    Raises:
        TargetError: If ``host`` is neither a name nor an address. A host that ends in a number must be an
            IPv4 address: resolvers disagree about the rest.

    Example:
        >>> canonical_host("DB.Internal."), canonical_host("2130706433"), canonical_host("[::FFFF:10.0.0.5]")
        ('db.internal', '127.0.0.1', '10.0.0.5')
    """
    if not isinstance(host, str):
        raise TargetError(f"the host is not a text but of type {type(host).__name__}")
    if not host:
        raise TargetError("the host is empty")
    if host.startswith("[") and host.endswith("]"):
        return str(_ipv6(host[1:-1], host))
    if ":" in host:
        return str(_ipv6(host, host))
    text = host.lower()
    if not text.isascii():
        # IDNA can turn other scripts' digits and dots into ASCII: the literal is looked for afterwards.
        text = _to_ascii(text, host)
    text = text.removesuffix(".")
    labels = text.split(".")
    if _is_number(labels[-1]):
        return str(_ipv4(labels, host))
    _check_name(text, labels, host)
    return text


def literal(host: str) -> IPAddress | None:
    """The address that a canonical host is, or None for a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def normalise_address(address: str) -> IPAddress | None:
    """Read a numeric address as a resolver gives it (a zone such as ``%eth0`` is dropped).

    Returns:
        The address, mapped and NAT64 forms as the IPv4 address they carry; None if it is no address.
    """
    try:
        return unwrap(ipaddress.ip_address(address.partition("%")[0]))
    except ValueError:
        return None


def unwrap(address: IPAddress) -> IPAddress:
    """The IPv4 address inside a mapped or NAT64 one; any other address as it is."""
    if isinstance(address, ipaddress.IPv6Address) and any(address in net for net in _CARRIES_IPV4):
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address


def unwrap_network(network: IPNetwork) -> IPNetwork:
    """The IPv4 network inside a mapped or NAT64 one; any other network as it is."""
    if isinstance(network, ipaddress.IPv6Network) and any(network.subnet_of(net) for net in _CARRIES_IPV4):
        address = int(network.network_address) & 0xFFFF_FFFF
        return ipaddress.IPv4Network((address, network.prefixlen - 96))
    return network


def why_refused(address: IPAddress) -> str | None:
    """Why an address may be dialled only if it is listed itself; None for an ordinary address."""
    for network, reason in _REFUSED:
        if address in network:
            return reason
    return None


def _ipv6(text: str, host: str) -> IPAddress:
    if "%" in text:
        raise TargetError(f"{host!r} names a network interface; give the address without its zone")
    try:
        return unwrap(ipaddress.IPv6Address(text))
    except ValueError:
        raise TargetError(f"{host!r} is not an IPv6 address; a host name has no colon") from None


def _to_ascii(text: str, host: str) -> str:
    # The length first: the codec's work grows with the square of it.
    if len(text) > _NAME_MAX:
        raise TargetError(f"the host has {len(text)} characters; at most {_NAME_MAX} are allowed")
    try:
        return text.encode("idna").decode("ascii").lower()
    except UnicodeError:
        raise TargetError(f"{host!r} is not a host name, nor an international one (IDNA)") from None


def _is_number(label: str) -> bool:
    return label.isdigit() or (label.startswith("0x") and not label[2:].strip("0123456789abcdef"))


def _number(label: str) -> int:
    if label.startswith("0x"):
        return int(label[2:] or "0", 16)
    # int() itself refuses "08" in base 8, which is what inet_aton does.
    return int(label, 8) if label.startswith("0") and len(label) > 1 else int(label)


def _ipv4(labels: list[str], host: str) -> ipaddress.IPv4Address:
    """Read one to four numbers as ``inet_aton`` does: the last fills all bytes that are left."""
    fault = TargetError(f"{host[:64]!r} ends in a number but is not an IPv4 address")
    if len(labels) > 4 or any(len(label) > 16 or not _is_number(label) for label in labels):
        raise fault
    try:
        *head, last = (_number(label) for label in labels)
    except ValueError:
        raise fault from None
    if any(part > 255 for part in head) or last >= 256 ** (4 - len(head)):
        raise fault
    value = last
    for position, part in enumerate(head):
        value |= part << (24 - 8 * position)
    return ipaddress.IPv4Address(value)


def _check_name(text: str, labels: list[str], host: str) -> None:
    if len(text) > _NAME_MAX:
        raise TargetError(f"the host has {len(text)} characters; at most {_NAME_MAX} are allowed")
    for label in labels:
        if not label:
            raise TargetError(f"{host!r} has an empty part between its dots")
        if len(label) > _LABEL_MAX:
            raise TargetError(f"{host!r} has a part of {len(label)} characters; at most {_LABEL_MAX} fit")
        wrong = sorted(set(label) - _LABEL_CHARACTERS)
        if wrong:
            raise TargetError(f"{host!r} holds {''.join(wrong)!r}, which no host name does")
