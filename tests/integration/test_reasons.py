"""Why a session ended reaches the other side and the record, whatever the links did at that moment."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import pytest

from emissary_lib import TunnelResetError
from emissary_lib.protocol.auth.keys import Key
from emissary_lib.protocol.codes import Code
from emissary_lib.tunnel.loopback import reset
from emissary_local import Faults, Limits, LocalCloud
from tests.helpers.kinds import Kind
from tests.helpers.local_cloud import (
    DIAL,
    LINUX_ONLY,
    PARAMETERS,
    TEMPLATE,
    audit_record,
    connection_records,
    dialer_of,
)
from tests.helpers.patience import HANG, read_until_it_raises, wait_until
from tests.helpers.servers import Server, echo

pytestmark = [LINUX_ONLY, pytest.mark.slow]

#: How long nobody is let in, in seconds: longer than last words are repeated, shorter than the grace.
OUTAGE = 6.0

#: For how many seconds at least each connection is cut as soon as it is there, and how many there may be by
#: then: the pauses are 0.1 s, 0.2 s, 0.4 s, ..., 2 s, and at least half of that. A slow machine makes fewer.
FLAPPING = 3.0
FLAPS_AT_ONCE = 6


#: More than one message.
BULK = bytes(300_000)


def until_it_ends(connection: socket.socket, ended: threading.Event, errors: list[OSError]) -> None:
    connection.sendall(b"x")
    try:
        connection.recv(1)
    except OSError as exc:
        errors.append(exc)
    ended.set()


def test_reason_said_during_an_outage_is_told_after_it(sick: LocalCloud, kind: Kind) -> None:
    """Symptom: after five seconds the reason was dropped; user and record had RELAY_GONE and DIALER_GONE."""
    resets, ended, errors = threading.Event(), threading.Event(), list[OSError]()

    def resetting(connection: socket.socket) -> None:
        connection.sendall(b"x")
        resets.wait()
        reset(connection)

    with contextlib.ExitStack() as stack:
        dialer = stack.enter_context(dialer_of(sick, **kind.options))
        targets = [Server(resetting), Server(lambda connection: until_it_ends(connection, ended, errors))]
        by_target, by_user = (
            stack.enter_context(dialer.dial(stack.enter_context(target), DIAL)) for target in targets
        )
        stack.callback(resets.set)
        for sock in (by_target, by_user):
            sock.settimeout(HANG)
            assert sock.recv(1) == b"x"
        sessions = [sock.session for sock in (by_target, by_user)]
        sick.set_faults(Faults(connect_500=1.0))
        try:
            assert sick.cut("both", "reset") == (2 if kind.shared else 4)
            resets.set()
            reset(by_user)
            threading.Event().wait(OUTAGE)  # the outage itself
        finally:
            sick.set_faults(Faults())
        with pytest.raises(TunnelResetError) as caught:
            by_target.recv(1)
        assert caught.value.code.name == "TARGET_RESET"
        assert ended.wait(HANG)
        assert [type(error) for error in errors] == [ConnectionResetError]
        ids = [session.id for session in sessions if session is not None]
        if kind.shared:
            assert len(set(ids)) == 1
            assert audit_record(sick, ids[0])["code"] == "OK"
            codes = sorted(record["code"] for record in connection_records(sick, ids[0]))
        else:
            codes = sorted(audit_record(sick, each)["code"] for each in ids)
        assert codes == ["DIALER_RESET", "TARGET_RESET"]


def test_dialer_whose_key_was_withdrawn_is_told_so_when_it_comes_back(kind: Kind) -> None:
    """Symptom: UNKNOWN_SESSION, "the session is over: HTTP status 403", without cause or advice."""
    with (
        LocalCloud(TEMPLATE, parameters=PARAMETERS) as cloud,  # whose keys are for no other test
        Server(echo) as target,
        dialer_of(cloud, **kind.options) as dialer,
        dialer.dial(target, DIAL) as sock,
    ):
        sock.settimeout(HANG)
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"
        key_id = cloud.key.key_id
        cloud.rotate_keys([Key(key_id + 1, bytes(32))])
        cloud.retire()  # what is warm remembers the key for five minutes
        assert cloud.cut("dialer", "reset") == 1
        with pytest.raises(TunnelResetError, match=f"key id {key_id} is unknown there") as caught:
            sock.recv(1)
        assert caught.value.code is Code.AUTHENTICATION_FAILED


def test_connections_that_are_let_in_and_cut_at_once_are_asked_for_ever_more_rarely(
    sick: LocalCloud, kind: Kind
) -> None:
    """Symptom: 940 connections in 45 s."""
    with (
        Server(echo) as target,
        dialer_of(sick, **kind.options) as dialer,
        dialer.dial(target, DIAL) as sock,
    ):
        sock.settimeout(HANG)
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"
        assert sock.session is not None
        counters = sock.session.counters
        began = time.monotonic()

        def flapped() -> bool:
            sick.cut("dialer", "reset")
            return counters.link_losses > 2 and time.monotonic() > began + FLAPPING

        wait_until(flapped, "the loss of some connections")
        losses = counters.link_losses
        assert losses < FLAPS_AT_ONCE + (time.monotonic() - began)
        sock.sendall(b"y")
        assert sock.recv(1) == b"y"
        assert sock.session.error is None


def test_message_that_the_gateway_will_never_take_ends_the_session_and_says_why(kind: Kind) -> None:
    """Symptom: nothing ever arrived, and nobody was told."""
    with (
        LocalCloud(TEMPLATE, parameters=PARAMETERS, limits=Limits(message_bytes=20_000)) as cloud,
        Server(lambda connection: connection.sendall(BULK)) as target,
        dialer_of(cloud, **kind.options) as dialer,
        dialer.dial(target, DIAL) as sock,
    ):
        sock.settimeout(HANG)
        with pytest.raises(TunnelResetError) as caught:
            read_until_it_raises(lambda: sock.recv(65_536), bytearray())
        assert caught.value.code is Code.MESSAGE_REFUSED
        assert sock.session is not None
        assert audit_record(cloud, sock.session.id)["code"] == "MESSAGE_REFUSED"
