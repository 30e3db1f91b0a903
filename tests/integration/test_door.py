"""Launch at the door through the local cloud: a relay before the opening, once, and no place lost with it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from emissary_lib.exceptions import EmissaryError
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.wire.frames import FrameType
from emissary_local import Faults, LocalCloud
from tests.helpers.kinds import OWN, Kind
from tests.helpers.local_cloud import (
    DIAL,
    LINUX_ONLY,
    PARAMETERS,
    TEMPLATE,
    dialer_of,
    json_lines,
    log_lines,
    relay_returned,
)
from tests.helpers.patience import HANG, wait_until
from tests.helpers.raw_dialer import RawDialer

pytestmark = LINUX_ONLY

ONE = {**PARAMETERS, "MaxSessions": "1", "RelayGraceSeconds": "5"}


@pytest.fixture(scope="module")
def cloud() -> Iterator[LocalCloud]:
    with LocalCloud(TEMPLATE, parameters=ONE) as running:
        yield running


@pytest.fixture
def free(cloud: LocalCloud) -> None:
    """The only place there is, free again after the test before.

    Of a session that was launched twice that takes half a minute, so such a test comes last.
    """
    wait_free(cloud)


def wait_free(cloud: LocalCloud) -> None:
    with dialer_of(cloud, **OWN.options) as dialer:
        wait_until(lambda: not dialer.health(DIAL).usage.sessions, "the place, free again")


def launches(cloud: LocalCloud, session: str) -> int:
    return [line["message"] for line in log_lines(cloud, session)].count("relay launched")


@pytest.mark.usefixtures("free")
@pytest.mark.parametrize("sends", [False, True], ids=["no OPENING", "with the OPENING"])
def test_an_upgrade_alone_brings_the_relay_and_its_opening_no_other(
    cloud: LocalCloud, target: tuple[str, int], sends: bool
) -> None:
    with RawDialer(cloud.url, cloud.key, shows=target) as raw:
        opening = raw.opening(target)
        if sends:
            raw.send(FrameType.OPENING, opening)
        parameters, _data = raw.opened()
        assert parameters.code is Code.OK
        assert raw.end(sent=len(opening)).code is Code.DIALER_RESET
        assert relay_returned(cloud, raw.session) == "DIALER_RESET"
        assert launches(cloud, raw.session) == 1


@pytest.mark.usefixtures("free")
def test_a_dial_is_launched_at_the_door(cloud: LocalCloud, target: tuple[str, int], kind: Kind) -> None:
    with dialer_of(cloud, **kind.options) as dialer, dialer.dial(target, DIAL) as sock:
        sock.settimeout(HANG)
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"
        assert sock.session is not None
        session = sock.session.id
        by = [line["function"] for line in log_lines(cloud, session) if line["message"] == "relay launched"]
        assert len(by) == 1
        assert "Connect" in by[0]


@pytest.mark.usefixtures("free")
@pytest.mark.parametrize("told", [True, False], ids=["with $disconnect", "without"])
def test_a_dialer_that_never_gets_its_101_leaves_its_place_to_the_next(
    cloud: LocalCloud, target: tuple[str, int], told: bool
) -> None:
    """The relay finds nobody, ends the session and goes."""

    def launched() -> list[str]:
        return [line["session"] for line in json_lines(cloud) if line.get("message") == "relay launched"]

    before = launched()
    cloud.set_faults(Faults(connect_lost=1.0, disconnect_missing=0.0 if told else 1.0))
    try:
        with contextlib.suppress(EmissaryError):
            RawDialer(cloud.url, cloud.key, shows=target).__exit__(None, None, None)
            raise AssertionError("the 101 was not lost")
        (session,) = [each for each in launched() if each not in before]
    finally:
        cloud.set_faults(Faults())
    wait_free(cloud)
    assert launches(cloud, session) == 1
    with dialer_of(cloud, **OWN.options) as dialer:
        dialer.dial(target, DIAL).close()


@pytest.mark.usefixtures("free")
def test_a_launch_that_lambda_refuses_is_made_up_for_by_the_opening(
    cloud: LocalCloud, target: tuple[str, int]
) -> None:
    cloud.set_faults(Faults(invoke_429=1.0))
    try:
        raw = RawDialer(cloud.url, cloud.key, shows=target)
    finally:
        cloud.set_faults(Faults())
    with raw:
        raw.send(FrameType.OPENING, raw.opening(target))
        raw.opened()
        messages = [line["message"] for line in log_lines(cloud, raw.session)]
        assert messages.count("relay not launched at the door") == 1
        assert messages.count("relay launched") == 1
        raw.end()
