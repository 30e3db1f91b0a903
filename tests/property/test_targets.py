"""Targets: one form each, and no spelling that slips past the allow-list."""

from __future__ import annotations

import ipaddress
import json
import socket

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from emissary_lib.protocol.targets.addresses import IPAddress, canonical_host, why_refused
from emissary_lib.protocol.targets.allow_list import AllowList, Target, TargetError
from tests.fuzz import targets

EVERYTHING = AllowList.parse(
    '[{"host": "0.0.0.0/0", "port": "1-65535"}, {"host": "::/0", "port": "1-65535"}]'
)
NUMBERS = st.integers(0, 1 << 33).flatmap(
    lambda n: st.sampled_from([str(n), hex(n), f"0{n:o}", hex(n).upper()])
)


@given(st.text(max_size=80))
@example("\u2177.1")
@example("\uff0e")
@example("xn--a.xn--")
def test_normalising_ends_in_a_fixed_form_or_in_its_own_error(host: str) -> None:
    targets.hosts(host.encode())


@given(st.lists(NUMBERS, min_size=1, max_size=5).map(".".join))
def test_numbers_are_read_as_the_c_library_reads_them(host: str) -> None:
    """inet_aton is what connects in the end; where it reads an address, so must the allow-list."""
    try:
        packed = socket.inet_aton(host.lower())
    except OSError:
        with pytest.raises(TargetError):
            canonical_host(host)
    else:
        assert canonical_host(host) == str(ipaddress.ip_address(packed))


@given(st.ip_addresses())
def test_every_spelling_of_an_address_is_judged_alike(
    address: IPAddress,
) -> None:
    spellings = [str(address), address.exploded, f"[{address}]" if address.version == 6 else f"{address}."]
    if isinstance(address, ipaddress.IPv4Address):
        number = int(address)
        spellings += [str(number), hex(number), f"::ffff:{address}", f"64:ff9b::{address}", f"0{number:o}"]
    forms = {Target(spelling, 1) for spelling in spellings}
    assert len(forms) == 1
    form = forms.pop()
    literal = form.address
    assert literal is not None
    assert EVERYTHING.permits(form) == (why_refused(literal) is None)
    assert EVERYTHING.permits_address(form, str(address)) == EVERYTHING.permits(form)


@given(st.from_regex(r"[a-z][a-z0-9-]{0,10}(\.[a-z]{1,10}){0,3}", fullmatch=True), st.integers(1, 65535))
def test_a_name_passes_by_a_rule_for_names_alone(host: str, port: int) -> None:
    target = Target.parse(f"{host}:{port}")
    assert Target.parse(str(target)) == target
    assert not EVERYTHING.permits(target)
    assert AllowList.parse(json.dumps({"host": host, "port": port})).permits(target)
    assert AllowList.parse(json.dumps({"host": f"*.{host}", "port": port})).permits(Target(f"x.{host}", port))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["host", "port", "x"]), inner)
    ),
    max_leaves=10,
)


@given(st.one_of(JSON.map(json.dumps), st.text(max_size=40)))
def test_any_text_is_an_allow_list_or_a_config_error(text: str) -> None:
    targets.allow_list(text.encode())


@given(st.text(max_size=40))
def test_any_text_is_a_target_or_a_target_error(text: str) -> None:
    targets.targets(text.encode())
