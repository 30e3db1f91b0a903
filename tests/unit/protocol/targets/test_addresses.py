"""addresses: one host, one form."""

from __future__ import annotations

import ipaddress

import pytest

from emissary_lib.protocol.targets.addresses import (
    TargetError,
    canonical_host,
    literal,
    normalise_address,
    unwrap_network,
    why_refused,
)


@pytest.mark.parametrize(
    ("host", "normal"),
    [
        ("db.internal", "db.internal"),
        ("DB.Internal.", "db.internal"),
        ("under_score-1.x", "under_score-1.x"),
        ("Bücher.example", "xn--bcher-kva.example"),
        ("b\u3002example", "b.example"),
        ("10.0.0.5", "10.0.0.5"),
        ("10.0.0.5.", "10.0.0.5"),
        ("2130706433", "127.0.0.1"),
        ("0x7f000001", "127.0.0.1"),
        ("0X7F.1", "127.0.0.1"),
        ("127.1", "127.0.0.1"),
        ("127.0.1", "127.0.0.1"),
        ("0177.0.0.01", "127.0.0.1"),
        ("017700000001", "127.0.0.1"),
        ("0", "0.0.0.0"),
        ("0x", "0.0.0.0"),
        ("4294967295", "255.255.255.255"),
        ("1.256", "1.0.1.0"),
        ("10.16777215", "10.255.255.255"),
        ("\uff11\uff12\uff17.0.0.1", "127.0.0.1"),
        ("\u2460.1.1.1", "1.1.1.1"),
        ("::1", "::1"),
        ("[::1]", "::1"),
        ("FD00:0:0::5", "fd00::5"),
        ("::ffff:127.0.0.1", "127.0.0.1"),
        ("[::FFFF:7f00:1]", "127.0.0.1"),
        ("64:ff9b::a9fe:a9fe", "169.254.169.254"),
        ("64:ff9b:1::1", "64:ff9b:1::1"),
    ],
)
def test_every_spelling_has_one_form(host: str, normal: str) -> None:
    assert canonical_host(host) == normal
    assert canonical_host(normal) == normal


@pytest.mark.parametrize(
    ("host", "fault"),
    [
        ("", "is empty"),
        (".", "empty part"),
        ("a..b", "empty part"),
        ("a b", "holds ' '"),
        ("a\0", "no host name does"),
        ("a/b", "holds '/'"),
        ("user@host", "holds '@'"),
        ("db:5432", "not an IPv6 address"),
        ("[db]", "not an IPv6 address"),
        ("[", r"holds '\['"),
        ("fe80::1%eth0", "without its zone"),
        ("x" * 64, "part of 64 characters"),
        (".".join(["x" * 60] * 5), "the host has 304 characters"),
        ("ü" * 300, "the host has 300 characters"),
        ("ü" * 100, "not a host name"),
        ("\ud800", "not a host name"),
        ("1.2.3.4.5", "not an IPv4 address"),
        ("256.1.1.1", "not an IPv4 address"),
        ("10.16777216", "not an IPv4 address"),
        ("4294967296", "not an IPv4 address"),
        ("08.0.0.1", "not an IPv4 address"),
        ("0x1g.1", "not an IPv4 address"),
        ("db.123", "not an IPv4 address"),
        ("9" * 5000, "not an IPv4 address"),
    ],
)
def test_what_is_no_host_is_refused_with_the_reason(host: str, fault: str) -> None:
    with pytest.raises(TargetError, match=fault):
        canonical_host(host)


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("0.0.0.0", "unspecified"),
        ("0.1.2.3", "unspecified"),
        ("127.0.0.1", "loopback"),
        ("127.255.0.1", "loopback"),
        ("169.254.169.254", "link-local"),
        ("169.254.170.2", "link-local"),
        ("224.0.0.1", "multicast"),
        ("255.255.255.255", "reserved"),
        ("::", "unspecified"),
        ("::1", "loopback"),
        ("::7f00:1", "reserved"),
        ("fe80::1", "link-local"),
        ("ff02::1", "multicast"),
        ("fd00:ec2::254", "AWS metadata"),
        ("10.0.0.5", None),
        ("172.31.0.2", None),
        ("8.8.8.8", None),
        ("fd00::5", None),
        ("2001:db8::1", None),
    ],
)
def test_dangerous_addresses_are_known(address: str, reason: str | None) -> None:
    assert why_refused(ipaddress.ip_address(address)) == reason


@pytest.mark.parametrize(
    ("given", "normal"),
    [
        ("10.0.0.5", "10.0.0.5"),
        ("fe80::1%eth0", "fe80::1"),
        ("::ffff:10.0.0.5", "10.0.0.5"),
        ("64:ff9b::a00:5", "10.0.0.5"),
    ],
)
def test_a_resolved_address_is_unwrapped(given: str, normal: str) -> None:
    assert normalise_address(given) == ipaddress.ip_address(normal)


@pytest.mark.parametrize("given", ["", "db.internal", "127.1", "[::1]", "10.0.0.5:80"])
def test_what_a_resolver_never_gives_is_no_address(given: str) -> None:
    assert normalise_address(given) is None


@pytest.mark.parametrize(
    ("network", "inner"),
    [
        ("::ffff:10.0.0.0/112", "10.0.0.0/16"),
        ("64:ff9b::/96", "0.0.0.0/0"),
        ("fd00::/8", "fd00::/8"),
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("::/0", "::/0"),
    ],
)
def test_a_network_of_wrapped_addresses_is_unwrapped(network: str, inner: str) -> None:
    assert unwrap_network(ipaddress.ip_network(network)) == ipaddress.ip_network(inner)


def test_a_name_is_no_literal() -> None:
    assert literal("db.internal") is None
    assert literal("::1") == ipaddress.ip_address("::1")
