"""The places of a stack: taken by one session after another, and not lost with those who had them."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.wire.frames import FrameType
from emissary_lib.protocol.wire.health import Usage
from emissary_lib.protocol.wire.payloads import Ended
from emissary_local import LocalCloud
from tests.helpers.kinds import OWN, Kind
from tests.helpers.local_cloud import DIAL, LINUX_ONLY, PARAMETERS, TEMPLATE, dialer_of, json_lines
from tests.helpers.patience import HANG, wait_until
from tests.helpers.raw_dialer import RawDialer
from tests.helpers.servers import BlackHole
from tests.helpers.unclaimed import launched_unclaimed

pytestmark = [LINUX_ONLY, pytest.mark.slow]

ONE = {**PARAMETERS, "MaxSessions": "1", "RelayGraceSeconds": "5"}


@pytest.fixture(scope="module")
def cloud() -> Iterator[LocalCloud]:
    with LocalCloud(TEMPLATE, parameters=ONE) as running:
        yield running


def test_dialling_again_after_a_close_finds_the_place_free(
    cloud: LocalCloud, target: tuple[str, int], kind: Kind
) -> None:
    """So does a pool that keeps no connection. A quarter of such dials was refused."""
    with dialer_of(cloud, **kind.options) as dialer:
        for _ in range(12):
            sock = dialer.dial(target, DIAL)
            sock.settimeout(HANG)
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
            sock.close()


def test_clients_that_hang_up_on_a_silent_target_leave_the_place_to_the_next(cloud: LocalCloud) -> None:
    """Their relays stayed until the target's ten seconds were over."""

    def noted(**said: str) -> int:
        return sum(said.items() <= line.items() for line in json_lines(cloud))

    with (
        BlackHole() as silent,
        dialer_of(cloud, **OWN.options) as dialer,
        dialer.forward(silent) as forward,
    ):
        host, port = forward

        def hang_up_behind_the_claim(claims: int) -> None:
            with socket.create_connection((host, port)):
                wait_until(lambda: noted(message="relay claimed") > claims, "the claim")

        for _ in range(3):
            hang_up_behind_the_claim(noted(message="relay claimed"))
            wait_until(lambda: not dialer.health(DIAL).usage.sessions, "the place, free again")
        target = f"{silent[0]}:{silent[1]}"
        assert noted(message="claimed", target=target, code="GIVEN_UP") == 3
        assert forward.last_error is None, "there was no place"


def test_a_place_whose_relay_and_dialer_have_died_is_free_before_the_relays_timeout(
    cloud: LocalCloud, target: tuple[str, int]
) -> None:
    with dialer_of(cloud) as other:

        def used() -> int:
            sessions: int = other.health(DIAL).usage.sessions
            return sessions

        wait_until(lambda: used() == 0, "the end of the sessions before")
        with RawDialer(cloud.url, cloud.key) as raw:
            raw.send(FrameType.OPENING, raw.opening(target))
            raw.opened()
            assert used() == 1
            assert cloud.crash("RelayFunction") >= 1, "one that was refused before may be on its way out"
        wait_until(lambda: used() == 0, "the place, free again")


def test_clients_that_hang_up_behind_the_launch_leave_their_places_to_the_next(
    target: tuple[str, int],
) -> None:
    """Half a minute after each launch they were free again: of five places, one was left to who came next."""
    five = {**PARAMETERS, "MaxSessions": "5"}
    with LocalCloud(TEMPLATE, parameters=five) as cloud, contextlib.ExitStack() as stack:
        hasty = [stack.enter_context(RawDialer(cloud.url, cloud.key)) for _ in range(6)]
        with launched_unclaimed(cloud, target, hasty[:5]):
            hasty[5].send(FrameType.OPENING, hasty[5].opening(target))
            assert Ended.decode(hasty[5].receive(FrameType.ENDED).payload).code is Code.SESSION_LIMIT
        dialer = stack.enter_context(dialer_of(cloud, **OWN.options))
        assert dialer.health(DIAL).usage == Usage(0, 5)
        for _ in range(5):
            sock = stack.enter_context(dialer.dial(target, DIAL))
            sock.settimeout(HANG)
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
        assert dialer.health(DIAL).usage == Usage(5, 5)
