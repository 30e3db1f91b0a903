"""Where to: hosts and addresses in all spellings, targets, and the list of those that are allowed."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import re
import socket

from emissary_lib.protocol.errors import ConfigError
from emissary_lib.protocol.targets.addresses import (
    TargetError,
    canonical_host,
    literal,
    normalise_address,
    why_refused,
)
from emissary_lib.protocol.targets.allow_list import AllowList, Target
from tests.fuzz.entry import as_text


def hosts(data: bytes) -> None:
    """Where the C library, which connects in the end, reads an IPv4 address, so does this, and no other.

    But for a bare ``0x``, which is 0 to browsers and nothing to glibc, and for numbers behind many zeros,
    which are refused here; neither spelling is ever dialled.
    """
    text = as_text(data)
    normalise_address(text)
    found = None
    with contextlib.suppress(TargetError):
        found = canonical_host(text)
        assert found.isascii()
        assert canonical_host(found) == found
    numeric = text.lower().removesuffix(".")
    if all(re.fullmatch("(0x)?[0-9a-f]{1,14}", label) for label in numeric.split(".")):
        address = None
        with contextlib.suppress(OSError):
            address = str(ipaddress.ip_address(socket.inet_aton(numeric)))
        assert address == (found if found is not None and literal(found) else None)


def targets(data: bytes) -> None:
    with contextlib.suppress(TargetError):
        target = Target.parse(as_text(data))
        assert Target.parse(str(target)) == target


def allow_list(data: bytes) -> None:
    allow, told = AllowList(), list[str]()
    try:
        allow = AllowList.parse(as_text(data))
        told = [str(rule) for rule in allow.rules]
    except ConfigError as error:
        told = list(error.faults) or [""]
    assert all(told), "an error without a cause"
    again = [
        {"host": rule.host, "port": [f"{low}-{high}" for low, high in rule.ports]} for rule in allow.rules
    ]
    assert AllowList.parse(json.dumps(again)) == allow
    for host in ("169.254.169.254", "127.0.0.1", "::1", "10.0.0.5", "db.internal"):
        target = Target(host, 5432)
        if allow.permits(target) and target.address is not None and why_refused(target.address) is not None:
            assert any(rule.host == host for rule in allow.rules)
