"""sides: the two ends of one session are recognised by their upgrade requests."""

from __future__ import annotations

from websockets.datastructures import Headers

from emissary_lib.protocol.auth.headers import NONCE, RELAY_TOKEN, SESSION
from emissary_lib.protocol.auth.macs import session_id
from emissary_lib.protocol.wire.base64 import encode_unpadded
from emissary_local.gateway.client_role import Caller, caller

NONCE_BYTES = bytes(range(32))


def test_a_dialer_and_its_relay_have_the_same_session() -> None:
    dialer = caller(Headers({NONCE: encode_unpadded(NONCE_BYTES)}))
    relay = caller(Headers({RELAY_TOKEN.lower(): "x", SESSION.upper(): session_id(NONCE_BYTES)}))
    assert (dialer.side, relay.side) == ("dialer", "relay")
    assert dialer.session == relay.session == session_id(NONCE_BYTES)


def test_a_resuming_dialer_is_known_by_the_session_it_names() -> None:
    headers = Headers({NONCE: encode_unpadded(bytes(32)), SESSION: session_id(NONCE_BYTES)})
    assert caller(headers) == Caller("dialer", session_id(NONCE_BYTES))


def test_whoever_shows_nothing_readable_is_a_dialer_of_no_session() -> None:
    assert caller(Headers()) == caller(Headers({NONCE: "?"})) == Caller("dialer", "")
