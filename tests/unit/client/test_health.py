"""Asking for health: one question, repeated until it is answered, and believed only with a proof."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

import pytest

from emissary_lib.client import health
from emissary_lib.client.dialer import Dialer
from emissary_lib.client.endpoint import Endpoint
from emissary_lib.client.handshake import Upgrade
from emissary_lib.client.health import Health, check_health
from emissary_lib.exceptions import (
    AuthenticationError,
    ClosedError,
    FrameError,
    LinkClosedError,
    RemoteProtocolError,
    ServerProofError,
)
from emissary_lib.protocol.auth.headers import ConnectHeaders
from emissary_lib.protocol.auth.keys import Key
from emissary_lib.protocol.auth.macs import server_mac, signed_host
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.constants import HEALTH_INTERVAL
from emissary_lib.protocol.record import replace
from emissary_lib.protocol.wire.frames import Flag, Frame, FrameType, decode, encode
from emissary_lib.protocol.wire.health import Healthy, Usage
from emissary_lib.protocol.wire.payloads import Ended, Reset
from emissary_lib.transport.deadline import Deadline
from emissary_lib.transport.websocket import WebSocketTransport
from tests.helpers.hostile import Talkative
from tests.helpers.patience import HANG
from tests.helpers.ws_server import Peer, WsServer, refusal

KEY = Key(7, bytes(range(32)))
EXPECTED = Health("0.2.0", 2, (7, 8), Usage(3, 20), Usage(1, 5))

Script = Callable[[Peer, bytes], list[bytes]]


def healthy(
    peer: Peer, message: bytes, *, key: Key = KEY, question: bytes | None = None, fault: str = ""
) -> bytes:
    frame = decode(message)
    assert (frame.type, frame.generation, len(frame.payload)) == (FrameType.HEALTH, 1, 8)
    signed = ConnectHeaders.from_headers(peer.request.headers)
    host = signed_host(peer.request.headers["host"])
    proof = server_mac(key, date=signed.date, nonce=signed.nonce, host=host)
    answer = Healthy(question or frame.payload, proof, 2, Usage(3, 20), Usage(1, 5), (7, 8), "0.2.0", fault)
    return encode(Frame(FrameType.HEALTHY, generation=1, payload=answer.encode()))


@contextmanager
def bridge(*scripts: Script) -> Iterator[Dialer]:
    """A bridge that plays one script for each message, and says nothing to further ones."""
    left = list(scripts)

    def serve(peer: Peer) -> None:
        while (message := peer.read_message()) is not None:
            for text in left.pop(0)(peer, message) if left else ():
                peer.send_text(text)

    with WsServer(serve) as server:
        yield Dialer(server.url, KEY)


def answered(peer: Peer, message: bytes) -> list[bytes]:
    return [healthy(peer, message)]


def ignored(_peer: Peer, _message: bytes) -> list[bytes]:
    return []


def test_the_answer_is_what_the_bridge_says_of_itself() -> None:
    with bridge(answered) as dialer:
        assert dialer.health(HANG) == EXPECTED


def test_what_the_bridge_says_is_wrong_with_its_settings_is_passed_on() -> None:
    with bridge(lambda peer, message: [healthy(peer, message, fault="it is no list")]) as dialer:
        assert dialer.health(HANG) == replace(EXPECTED, fault="it is no list")


def test_a_question_that_is_lost_is_asked_again() -> None:
    with bridge(ignored, answered) as dialer:
        assert dialer.health(HANG) == EXPECTED


def test_the_gateway_s_own_error_is_no_answer() -> None:
    error = b'{"message": "Internal server error", "connectionId":"a=", "requestId":"b="}'
    with bridge(lambda peer, message: [error], answered) as dialer:
        assert dialer.health(HANG) == EXPECTED


def test_the_answer_to_another_question_is_not_taken_for_ours() -> None:
    def stale_first(peer: Peer, message: bytes) -> list[bytes]:
        return [healthy(peer, message, question=b"another!"), healthy(peer, message)]

    with bridge(stale_first) as dialer:
        assert dialer.health(HANG) == EXPECTED


def test_a_server_that_does_not_know_the_key_is_not_believed() -> None:
    impostor = Key(7, bytes(32))
    with bridge(lambda peer, message: [healthy(peer, message, key=impostor)]) as dialer:
        with pytest.raises(ServerProofError):
            dialer.health(HANG)


@pytest.mark.parametrize(
    ("kind", "payload", "error", "said"),
    [
        (
            FrameType.RESET,
            Reset(Code.PROTOCOL_ERROR, "HEALTH is not for the dialer to send").encode(),
            RemoteProtocolError,
            "it is of an older release",
        ),
        (
            FrameType.RESET,
            Reset(Code.AUTHENTICATION_FAILED, "the key was withdrawn").encode(),
            AuthenticationError,
            "the key was withdrawn",
        ),
        (
            FrameType.ENDED,
            Ended(Code.UNKNOWN_SESSION, 0, 0, "the bridge knows no such session").encode(),
            RemoteProtocolError,
            "the bridge knows no such session",
        ),
        (FrameType.HEALTHY, bytes(7), FrameError, "7 bytes of payload"),
    ],
)
def test_another_answer_is_an_error_that_says_which(
    kind: FrameType, payload: bytes, error: type[Exception], said: str
) -> None:
    text = encode(Frame(kind, generation=1, payload=payload))
    with bridge(lambda peer, message: [text]) as dialer, pytest.raises(error, match=said):
        dialer.health(HANG)


def test_a_bridge_that_says_nothing_runs_into_the_timeout() -> None:
    with bridge() as dialer, pytest.raises(TimeoutError, match="did not say how it is"):
        dialer.health(0.3)


STALE = Healthy(b"another!", bytes(36), 2, Usage(), Usage(), (), "0").encode()
TEXTS = [b"{{{{", encode(Frame(31, Flag.IGNORABLE)), encode(Frame(FrameType.HEALTHY, payload=STALE))]


@pytest.mark.parametrize("text", TEXTS, ids=["gateway errors", "ignorable", "another answer"])
def test_messages_that_are_no_answer_stretch_nothing_and_the_question_is_repeated(
    text: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    transport = Talkative(text)
    upgrade = Upgrade(bytes(32), "date", cast(WebSocketTransport, transport))
    monkeypatch.setattr(health, "connect_with_retry", lambda *_args: upgrade)
    began = transport.clock.now
    deadline = Deadline(3.5 * HEALTH_INTERVAL, lambda: transport.clock.now)
    with pytest.raises(TimeoutError, match="did not say how it is"):
        check_health(Endpoint("ws://127.0.0.1:1/x"), KEY, deadline)
    assert transport.clock.now - began <= 3.5 * HEALTH_INTERVAL + 0.02
    assert len(transport.sent) == 4


def test_a_hang_up_is_a_closed_link() -> None:
    with WsServer(lambda peer: None) as server, pytest.raises(LinkClosedError):
        Dialer(server.url, KEY).health(HANG)


def test_a_wrong_key_is_told_as_when_dialling() -> None:
    with WsServer(answer=lambda request: refusal(403)) as server:
        with pytest.raises(AuthenticationError, match="key id 7 is unknown there"):
            Dialer(server.url, KEY).health(HANG)


def test_a_throttled_gateway_is_asked_again() -> None:
    busy = [refusal(429), refusal(503)]

    def serve(peer: Peer) -> None:
        message = peer.read_message()
        assert message is not None
        peer.send_text(healthy(peer, message))
        peer.read_message()

    with WsServer(serve, answer=lambda request: busy.pop() if busy else None) as server:
        assert Dialer(server.url, KEY).health(HANG) == EXPECTED
        assert len(server.requests) == 3


def test_a_closed_dialer_does_not_ask() -> None:
    with bridge() as dialer:
        dialer.close()
        with pytest.raises(ClosedError):
            dialer.health()


ASKS_WITHOUT_DESCRIPTORS = """
import os, resource
from emissary_lib import Dialer, Key
from emissary_lib.exceptions import LocalResourceError

dialer = Dialer("ws://127.0.0.1:1/x", Key(7, bytes(range(32))))
before = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))), before[1]))
try:
    dialer.health()
except LocalResourceError as exc:
    print(exc)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc")
def test_the_first_question_without_a_descriptor_is_a_declared_error() -> None:
    """Symptom: a bare OSError, of the module that is loaded only then."""
    done = subprocess.run(
        [sys.executable, "-c", ASKS_WITHOUT_DESCRIPTORS], capture_output=True, text=True, timeout=HANG
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "ulimit -n" in done.stdout
