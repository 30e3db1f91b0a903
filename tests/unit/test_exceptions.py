"""The tree of errors: its drawing is true, its built-in bases hold, its texts say what to do."""

from __future__ import annotations

import re

import pytest

from emissary_lib import exceptions
from emissary_lib.exceptions import (
    AuthenticationError,
    DialError,
    RemoteProtocolError,
    dial_error,
    reset_error,
)
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.targets.allow_list import Target

TARGET = Target("db.internal", 5432)
BUILTINS = (
    OSError,
    ImportError,
    ValueError,
    PermissionError,
    ConnectionError,
    ConnectionRefusedError,
    TimeoutError,
    ConnectionResetError,
)


def drawn() -> list[tuple[str, str, str | None]]:
    """(name, parent, built-in base) of each line in the module's docstring."""
    found: list[tuple[str, str, str | None]] = []
    path = ["EmissaryError"]
    for line in (exceptions.__doc__ or "").splitlines():
        match = re.match(r"^    ((?:\|  |   )*)[|`]- (.+)$", line)
        if not match:
            continue
        depth = len(match[1]) // 3 + 1
        for name, base in re.findall(r"(\w+Error)(?:\((\w+)\))?", match[2].split("   ")[0]):
            path[depth:] = [name]
            found.append((name, path[depth - 1], base or None))
    return found


def test_the_drawing_is_the_tree() -> None:
    lines = drawn()
    assert len(lines) > 20
    assert {name for name, _parent, _base in lines} | {"EmissaryError"} == set(exceptions.__all__)
    for name, parent, base in lines:
        kind = getattr(exceptions, name)
        assert issubclass(kind, getattr(exceptions, parent)), f"{name} is no {parent}"
        if base:
            assert any(each.__name__ == base and issubclass(kind, each) for each in BUILTINS), (
                f"{name}: {base}"
            )


def test_every_error_a_driver_may_meet_at_a_socket_is_an_os_error() -> None:
    for kind in (
        exceptions.TransportError,
        exceptions.DialError,
        exceptions.TunnelResetError,
        AuthenticationError,
    ):
        assert issubclass(kind, OSError)


@pytest.mark.parametrize("code", [code for code in Code if code is not Code.OK])
def test_every_code_makes_errors_that_name_target_and_code(code: Code) -> None:
    cut = reset_error(TARGET, code, "because")
    assert "db.internal:5432" in str(cut)
    assert "unknown" in str(cut)
    assert cut.code is code
    assert isinstance(cut, ConnectionResetError)
    missed = dial_error(TARGET, code)
    assert "db.internal:5432" in str(missed)
    if code is Code.AUTHENTICATION_FAILED:
        assert isinstance(missed, AuthenticationError)
    elif code <= Code.FLOW_CONTROL_ERROR:
        assert isinstance(missed, RemoteProtocolError)
    else:
        assert isinstance(missed, DialError)
        assert (missed.code, missed.target) == (code, TARGET)


def test_the_relays_end_names_the_limit_it_had_and_how_to_set_it() -> None:
    """Symptom: it said "15-minute limit" of a relay that had been given one minute."""
    named = {
        1793.4: "30-minute limit",
        893.4: "15-minute limit",
        294.0: "5-minute limit",
        54.2: "1-minute limit",
        144.0: "limit of 144 s",
    }
    for limit, name in [*named.items(), (5.4, "limit of 5 s"), (None, "time limit")]:
        cut = str(reset_error(TARGET, Code.RELAY_DEADLINE, "", limit=limit))
        assert f"relay reached its {name} (template parameter RelayTimeout); dial again" in cut


def test_a_reset_without_a_reason_tells_the_codes_meaning() -> None:
    assert "no answer to PING in time (LINK_DEAD)" in str(reset_error(TARGET, Code.LINK_DEAD, ""))


@pytest.mark.parametrize(
    "code", [code for code in Code if code < 32 and code is not Code.OK] + [Code.AUTHENTICATION_FAILED]
)
def test_a_reset_says_what_to_do(code: Code) -> None:
    words = "dial again|compare|bring|log|ask the operator|then dial again"
    advice = str(reset_error(TARGET, code, "because")).partition("unknown")[2]
    if code is Code.RELAY_DEADLINE:  # it says so before
        advice = str(reset_error(TARGET, code, "because")).partition("unknown")[0]
    assert re.search(words, advice), advice


def test_a_reset_by_the_target_points_to_the_target_and_not_to_the_network() -> None:
    assert str(reset_error(TARGET, Code.TARGET_RESET, "")).endswith(
        "is unknown; see the target's log for why it closed the connection"
    )
    assert "sleeping machine" in str(reset_error(TARGET, Code.LINK_DEAD, ""))


def test_a_target_that_ended_a_connection_of_which_nothing_is_missing_is_told_of_as_just_that() -> None:
    """Symptom: each wrong password over TLS was followed by the doubt about a statement's outcome."""
    whole = reset_error(TARGET, Code.TARGET_RESET, "Broken pipe", whole=True)
    assert whole.whole
    assert "unknown" not in str(whole)
    assert "Nothing is missing" in str(whole)
