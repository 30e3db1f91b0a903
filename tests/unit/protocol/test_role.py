"""The two ends of a session (docs/protocol.md section 2)."""

from __future__ import annotations

from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.role import Role


def test_roles_have_the_wires_numbers() -> None:
    assert (Role.DIALER.wire, Role.RELAY.wire) == (1, 2)


def test_each_role_is_the_others_other_and_has_a_code_for_being_gone() -> None:
    assert [role.other for role in Role] == [Role.RELAY, Role.DIALER]
    assert [role.gone for role in Role] == [Code.DIALER_GONE, Code.RELAY_GONE]
