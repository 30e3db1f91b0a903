"""Opening a session: every way in which a dial fails, one by one, with its text."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import pytest

from emissary_lib import exceptions
from emissary_lib.client import handshake as opening
from emissary_lib.client.dialer import Dialer
from emissary_lib.client.endpoint import Endpoint
from emissary_lib.exceptions import (
    AnswerLostError,
    AuthenticationError,
    ClockSkewError,
    DialError,
    DialTimeoutError,
    GatewayRefusedError,
    GatewayUnreachableError,
    LinkClosedError,
    RemoteProtocolError,
    ServerProofError,
    UnsupportedVersionError,
)
from emissary_lib.protocol.auth.headers import ConnectHeaders, OpeningHeaders
from emissary_lib.protocol.auth.httpdate import http_date
from emissary_lib.protocol.auth.keys import Key, KeyRing
from emissary_lib.protocol.auth.macs import signed_host, verify_opening
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.opening.exchange import OpeningReader, evaluate, opening_bytes
from emissary_lib.protocol.opening.socks5 import reply, reply_for
from emissary_lib.protocol.role import Role
from emissary_lib.protocol.session.session import Session, SessionConfig
from emissary_lib.protocol.targets.allow_list import Target
from emissary_lib.protocol.wire.frames import Flag, Frame, FrameType, decode, encode
from emissary_lib.protocol.wire.payloads import Ended, Reset
from emissary_lib.transport.deadline import Deadline
from tests.helpers.bridge import ALLOWED, KEY, TARGET, Behaviour, Bridge, Relay, echo
from tests.helpers.hostile import Talkative
from tests.helpers.kinds import OWN, SHARED, Kind
from tests.helpers.patience import HANG
from tests.helpers.ws_server import Peer, Request, WsServer, refusal

#: A timeout that a test lets run out, in seconds: before anything has happened, if the machine is busy.
SHORT = 0.3

#: One that leaves time for an answer to the upgrade.
LONGER = 5.0


@pytest.fixture
def three_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait after the third is longer than a dial may take."""
    monkeypatch.setattr(opening, "back_off", lambda: iter([0.0, 0.0, 10 * HANG]))


def dial(bridge: Bridge, *, key: Key = KEY, target: str = TARGET, timeout: float = HANG) -> socket.socket:
    return OWN.dialer(bridge.url, key).dial(target, timeout)


def test_a_dial_reaches_the_target() -> None:
    with Bridge(Behaviour(script=echo)) as bridge, dial(bridge) as sock:
        sock.sendall(b"hello")
        assert sock.recv(100) == b"hello"
        assert bridge.relay().target == Target("db.internal", 5432)


def test_the_whole_opening_is_one_message() -> None:
    with Bridge() as bridge, dial(bridge):
        first = decode(bridge.messages[0])
        assert (first.type, first.offset) == (FrameType.OPENING, 0)
        assert len([text for text in bridge.messages if decode(text).type is FrameType.OPENING]) == 1


# -- the upgrade --------------------------------------------------------------------------------


def shown_by(request: Request) -> OpeningHeaders:
    """What an upgrade shows of its opening, its MAC being right."""
    signed, shown = ConnectHeaders.from_headers(request.headers), OpeningHeaders.from_headers(request.headers)
    assert shown is not None
    host = signed_host(request.headers["host"])
    verify_opening(shown, KEY, date=signed.date, nonce=signed.nonce, host=host)
    return shown


@pytest.mark.parametrize("kind", [OWN, SHARED], ids=["own", "shared"])
def test_an_upgrade_shows_the_opening_that_is_sent_behind_it(kind: Kind) -> None:
    """And a bridge that does not know that, as this one, lacks nothing."""
    with Bridge() as bridge, kind.dialer(bridge.url, KEY) as dialer, dialer.dial(TARGET, HANG):
        shown, sent = shown_by(bridge.server.requests[0]), decode(bridge.messages[0])
    assert sent.type is FrameType.OPENING
    assert (shown.window, shown.stream) == (sent.window, sent.payload)


class ShutGate:
    """A budget that other sessions have used up for good."""

    def acquire(self) -> bool:
        return False

    def release(self, count: int) -> None:
        pass


def test_a_relay_that_was_launched_at_the_door_may_be_quicker_than_the_opening_message() -> None:
    with Bridge(Behaviour(door=True)) as bridge:
        opened = opening.open_session(
            Endpoint(bridge.url), KEY, Target.parse(TARGET), SessionConfig(gate=ShutGate()), Deadline(HANG)
        )
        opened.transport.close()
        opened.transport.release()
        assert opened.session.undelivered == 0
        assert not [text for text in bridge.messages if decode(text).type is FrameType.OPENING]


def test_each_attempt_shows_its_own_opening() -> None:
    with Bridge(Behaviour(upgrade_statuses=(429,))) as bridge, dial(bridge):
        first, second = map(shown_by, bridge.server.requests)
        sent = decode(bridge.messages[0])
    assert first.stream != second.stream, "the password is another for each nonce"
    assert second.stream == sent.payload


def test_no_more_of_an_opening_is_shown_than_may_be() -> None:
    long = opening.Opening(Target.parse(TARGET), b"z" * 4000, 65_536)
    with Bridge() as bridge:
        upgrade = opening.connect_once(Endpoint(bridge.url), KEY, Deadline(HANG), None, long)
        upgrade.transport.close()
        upgrade.transport.release()
        shown = shown_by(bridge.server.requests[0])
    assert shown.stream == long.stream(KEY, upgrade.date, upgrade.nonce)[:3072]


def test_who_asks_for_health_shows_no_opening() -> None:
    with Bridge() as bridge:
        upgrade = opening.connect_with_retry(Endpoint(bridge.url), KEY, Deadline(HANG))
        upgrade.transport.close()
        upgrade.transport.release()
        assert OpeningHeaders.from_headers(bridge.server.requests[0].headers) is None


def test_a_wrong_secret_is_named_with_the_remedy() -> None:
    with Bridge() as bridge, pytest.raises(AuthenticationError, match="HTTP status 403") as caught:
        dial(bridge, key=Key(KEY.key_id, bytes(32)))
    assert "key id 7 is unknown there or its secret is another one" in str(caught.value)
    assert "EMISSARY_AUTH_KEYS" in str(caught.value)
    assert isinstance(caught.value, PermissionError)
    assert not isinstance(caught.value, ClockSkewError)


def test_another_host_is_told_as_that_and_not_as_a_wrong_key() -> None:
    """As behind a reverse proxy that rewrites Host."""
    with Bridge(Behaviour(host="api.example")) as bridge, pytest.raises(AuthenticationError) as caught:
        dial(bridge)
    said = str(caught.value)
    assert "HTTP status 421: key id 7 is right, but the API's host is another than 127.0.0.1," in said
    assert "a reverse proxy on the way rewrites Host" in said
    assert "EMISSARY_AUTH_KEYS" not in said


def test_the_text_of_a_refusal_shows_no_secret() -> None:
    key = Key(KEY.key_id, b"hunter2-hunter2-hunter2")
    with Bridge() as bridge, pytest.raises(AuthenticationError) as caught:
        dial(bridge, key=key)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("ahead", [1200.0, -1200.0])
def test_a_clock_that_is_off_is_named_as_such(ahead: float) -> None:
    with Bridge(Behaviour(clock_ahead=ahead)) as bridge, pytest.raises(ClockSkewError) as caught:
        dial(bridge)
    assert abs(caught.value.skew + ahead) <= 2  # ours minus the gateway's
    assert "1200 s" in str(caught.value) or "1199 s" in str(caught.value) or "1201 s" in str(caught.value)
    assert "set the dialer's clock" in str(caught.value)
    assert isinstance(caught.value, PermissionError)


def then(sock: socket.socket, data: bytes) -> None:
    """Send it again and again, until the client is gone."""
    with contextlib.suppress(ConnectionError):
        while data:
            sock.sendall(data)
    sock.recv(1)


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (b"Content-Length: 1000\r\n", b""),
        (b"Content-Length: 1000\r\n", b"half"),
        (b"Content-Length: 999999999999\r\n", b"x" * 65_536),
        (b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n"),
        (b"Content-Length: many\r\n", b""),
    ],
    ids=["none", "half", "endless", "chunks", "nonsense"],
)
def test_a_refusal_is_told_before_its_body(headers: bytes, body: bytes) -> None:
    """No deadline: whoever waits for the body waits for ever."""

    def refuse(sock: socket.socket) -> None:
        while b"\r\n\r\n" not in sock.recv(65_536):
            pass
        late = http_date(time.time() - 3600).encode()
        sock.sendall(b"HTTP/1.1 403 No\r\n" + headers + b"Date: " + late + b"\r\n\r\n")
        then(sock, body if body != b"half" else b"")

    with WsServer(raw=refuse) as server, pytest.raises(ClockSkewError):
        OWN.dialer(server.url, KEY).dial(TARGET, None)


def test_a_missing_signature_blames_what_took_the_headers_away() -> None:
    with Bridge(Behaviour(upgrade_statuses=(401,))) as bridge, pytest.raises(AuthenticationError) as caught:
        dial(bridge)
    assert "HTTP status 401" in str(caught.value)
    assert "proxy" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_throttling_and_server_errors_are_tried_again(status: int) -> None:
    with Bridge(Behaviour(upgrade_statuses=(status, status), script=echo)) as bridge:
        with dial(bridge) as sock:
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
        nonces = [request.headers["x-emissary-nonce"] for request in bridge.server.requests]
        assert len(set(nonces)) == 3  # a nonce is never used twice


@pytest.mark.usefixtures("three_attempts")
def test_throttling_that_lasts_is_raised_as_itself() -> None:
    with Bridge(Behaviour(upgrade_statuses=(429,) * 100)) as bridge:
        with pytest.raises(GatewayRefusedError, match="HTTP status 429") as caught:
            dial(bridge)
        assert caught.value.http_status == 429
        assert len(bridge.server.requests) == 3


@pytest.mark.parametrize("status", [400, 404, 409])
def test_other_refusals_are_final(status: int) -> None:
    with Bridge(Behaviour(upgrade_statuses=(status,) * 2)) as bridge:
        with pytest.raises(GatewayRefusedError, match=f"HTTP status {status}") as caught:
            dial(bridge)
        assert len(bridge.server.requests) == 1
    assert isinstance(caught.value, ConnectionError)


# -- the gateway --------------------------------------------------------------------------------


def test_a_refused_connection_is_an_unreachable_gateway() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    began = time.monotonic()
    with pytest.raises(GatewayUnreachableError, match=f"ws://127.0.0.1:{port}/s.*refused.*check the URL"):
        Dialer(f"ws://127.0.0.1:{port}/s", KEY).dial(TARGET, HANG)
    assert time.monotonic() - began < HANG, "it was tried again until the time was up"


def test_a_name_that_does_not_resolve_is_an_unreachable_gateway() -> None:
    with pytest.raises(GatewayUnreachableError, match="check the URL, DNS"):
        Dialer("wss://gateway.invalid:1/s", KEY).dial(TARGET, HANG)


def test_a_name_server_that_never_answers_does_not_outlast_the_timeout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answered = threading.Event()

    def getaddrinfo(*_args: object, **_options: object) -> list[object]:
        answered.wait(HANG)
        raise socket.gaierror(socket.EAI_AGAIN, "no answer")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    began = time.monotonic()
    with pytest.raises(DialTimeoutError, match="gateway's name to be looked up"):
        Dialer("wss://gateway.invalid/s", KEY).dial(TARGET, SHORT)
    assert time.monotonic() - began < HANG
    answered.set()


def test_a_gateway_that_never_answers_runs_into_the_timeout() -> None:
    with WsServer(raw=lambda sock: server.wait_closing()) as server:
        began = time.monotonic()
        with pytest.raises(DialTimeoutError) as caught:
            OWN.dialer(server.url, KEY).dial(TARGET, SHORT)
        assert SHORT <= time.monotonic() - began < HANG
    assert caught.value.step == "the gateway's answer to the connection"
    assert caught.value.timeout == SHORT
    assert f"took longer than {SHORT:g} s; it was waiting for the gateway's answer to the connection" in str(
        caught.value
    )


def test_an_answer_that_comes_byte_by_byte_does_not_stretch_the_timeout() -> None:
    def drip(sock: socket.socket) -> None:
        for byte in b"HTTP/1.1 101 Switching Protocols\r\n" * 100:
            sock.sendall(bytes([byte]))
            server.wait_closing(SHORT / 4)

    with WsServer(raw=drip) as server:
        began = time.monotonic()
        with pytest.raises(DialTimeoutError):
            OWN.dialer(server.url, KEY).dial(TARGET, SHORT)
        assert time.monotonic() - began < HANG  # the drops take minutes


@pytest.mark.parametrize("timeout", [0, -1])
def test_no_time_at_all_is_a_timeout_too(timeout: float) -> None:
    with Bridge() as bridge, pytest.raises(DialTimeoutError):
        dial(bridge, timeout=timeout)


@pytest.mark.parametrize(
    "greeting",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"220 mail.example\r\n\r\n",
        b"\x15\x03\x01\x00\x02\x02\x50\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 403\r\nno header\r\n\r\n",
        b"HTTP/1.1 403 No\r\n" + b"X: y\r\n" * 20_000,
    ],
)
def test_something_else_than_a_gateway_is_an_unreachable_gateway(greeting: bytes) -> None:
    with WsServer(raw=lambda sock: sock.sendall(greeting)) as server:
        with pytest.raises(GatewayUnreachableError, match="check the URL"):
            OWN.dialer(server.url, KEY).dial(TARGET, HANG)


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 101 Switching Pro"], ids=["nothing", "half an answer"])
def test_an_answer_that_is_lost_is_asked_for_again_with_a_fresh_nonce(said: bytes) -> None:
    """``$connect`` ran and the 101 was lost: the nonce is burnt, and a session exists that nobody has."""
    lost = [said, said]
    with Bridge(Behaviour(script=echo)) as bridge:
        bridge.server.answering(lambda request: lost.pop() if lost else None)
        with dial(bridge) as sock:
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
        nonces = [request.headers["x-emissary-nonce"] for request in bridge.server.requests]
        assert len(set(nonces)) == len(nonces) == 3


@pytest.mark.usefixtures("three_attempts")
def test_answers_that_are_lost_until_the_end_are_raised_as_such() -> None:
    with WsServer(answer=lambda request: b"") as server:
        with pytest.raises(AnswerLostError, match=r"before it had answered.*check the URL") as caught:
            OWN.dialer(server.url, KEY).dial(TARGET, HANG)
        assert len(server.requests) == 3
    assert isinstance(caught.value, GatewayUnreachableError)


def test_an_attempt_that_runs_out_of_time_does_not_hide_what_the_one_before_it_met(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    outcomes: list[Exception] = [AnswerLostError("cut off before it had answered"), TimeoutError()]

    def attempt(*_args: object, original: bool) -> opening.Upgrade:
        raise outcomes.pop(0)

    monkeypatch.setattr(opening, "connect_once", attempt)
    monkeypatch.setattr(opening, "back_off", lambda: iter([0.0]))
    with pytest.raises(AnswerLostError, match="cut off before it had answered"):
        opening.connect_with_retry(Endpoint("ws://127.0.0.1:1/x"), KEY, Deadline(HANG))
    assert outcomes == []


def test_a_redirect_is_not_followed() -> None:
    with WsServer() as elsewhere:
        answer = refusal(302, f"Location: {elsewhere.url}")
        with WsServer(answer=lambda request: answer) as server, pytest.raises(GatewayRefusedError) as caught:
            OWN.dialer(server.url, KEY).dial(TARGET, HANG)
        assert caught.value.http_status == 302
        assert elsewhere.requests == []  # or it would have had the signed headers


@pytest.mark.parametrize("subprotocol", ["emissary.v3", "mqtt"])
def test_a_server_with_another_subprotocol_is_told_apart(subprotocol: str) -> None:
    with WsServer(subprotocol=subprotocol) as server:
        with pytest.raises(GatewayUnreachableError, match=r"does not speak emissary\.v2; check the URL"):
            OWN.dialer(server.url, KEY).dial(TARGET, HANG)


# -- the bridge ---------------------------------------------------------------------------------


def test_a_bridge_that_never_answers_runs_into_the_timeout_and_is_told() -> None:
    with Bridge(Behaviour(silent=True)) as bridge:
        with pytest.raises(DialTimeoutError) as caught:
            dial(bridge, timeout=LONGER)
        assert caught.value.__cause__ is not None
        assert caught.value.__cause__.__notes__[0].startswith("session "), "to be found in the logs"
        assert caught.value.step == "the relay to start and to reach the target"
    assert isinstance(caught.value, TimeoutError)
    assert isinstance(caught.value, OSError)
    types = [decode(text).type for text in bridge.messages]
    assert types[0] is FrameType.OPENING
    assert FrameType.END in types


def test_a_server_that_cannot_prove_itself_gets_no_byte_of_the_users() -> None:
    with Bridge(Behaviour(false_proof=True)) as bridge, pytest.raises(ServerProofError) as caught:
        dial(bridge)
    assert "did not prove" in str(caught.value)
    assert isinstance(caught.value, PermissionError)
    stream = sorted(
        (frame.offset, frame.payload)
        for frame in map(decode, bridge.messages)
        if frame.type in (FrameType.OPENING, FrameType.DATA)
    )
    request = bridge.server.requests[0].headers
    signed = ConnectHeaders.from_headers(request)
    exchange = opening_bytes(key=KEY, date=signed.date, nonce=signed.nonce, target=Target.parse(TARGET))
    assert stream == [(0, exchange)]


MESSAGES = [b"{{{{", encode(Frame(31, Flag.IGNORABLE)), encode(Frame(FrameType.PROBED, payload=bytes(8)))]


@pytest.mark.parametrize("text", MESSAGES, ids=["gateway errors", "ignorable", "probed"])
@pytest.mark.parametrize("timeout", [0.5, 5.0])
def test_messages_that_mean_nothing_stretch_neither_the_dial_nor_its_farewell(
    text: bytes, timeout: float
) -> None:
    transport = Talkative(text)
    session = Session(Role.DIALER, SessionConfig(), now=time.monotonic())
    session.send_data(b"anything")
    reader = OpeningReader(KEY, "date", bytes(32), "host")
    handshake = opening.Handshake(Target.parse(TARGET), session, transport, reader)
    deadline = Deadline(timeout, lambda: transport.clock.now)
    began = transport.clock.now
    with pytest.raises(TimeoutError):
        handshake.run(deadline)
    assert transport.clock.now - began <= timeout + 0.02
    assert FrameType.END in [decode(text).type for text in transport.sent]


@pytest.mark.parametrize("text", MESSAGES, ids=["gateway errors", "ignorable", "probed"])
def test_a_dial_that_fails_early_waits_a_moment_for_the_bridge_and_no_longer(text: bytes) -> None:
    transport = Talkative(text)
    session = Session(Role.DIALER, SessionConfig(), now=time.monotonic())
    reader = OpeningReader(KEY, "date", bytes(32), "host")
    handshake = opening.Handshake(Target.parse(TARGET), session, transport, reader)
    began = transport.clock.now
    handshake.give_up(Code.PROTOCOL_ERROR, "why", Deadline(HANG, lambda: transport.clock.now))
    assert opening.GIVE_UP_WAIT <= transport.clock.now - began <= opening.GIVE_UP_WAIT + 0.02


def test_success_without_a_relay_is_a_broken_server() -> None:
    def forge(peer: Peer) -> None:
        signed = ConnectHeaders.from_headers(peer.request.headers)
        text = peer.read_message()
        assert text
        answer = evaluate(
            {(0, decode(text).payload)},
            nonce=signed.nonce,
            date=signed.date,
            host=signed_host(peer.request.headers["host"]),
            key_id=KEY.key_id,
            keys=KeyRing([KEY]),
            allow=ALLOWED,
            server_version="0",
        )
        payload = answer.server_bytes + reply(reply_for(Code.OK), ("0.0.0.0", 0))
        peer.send_text(encode(Frame(FrameType.DATA, generation=1, window=65_536, payload=payload)))
        while peer.read_message() is not None:
            pass

    with WsServer(forge) as server, pytest.raises(RemoteProtocolError, match="no relay has opened"):
        OWN.dialer(server.url, KEY).dial(TARGET, HANG)


@pytest.mark.parametrize(
    ("code", "kind", "builtin", "text"),
    [
        (Code.NAME_NOT_FOUND, exceptions.NameNotFoundError, ConnectionError, "does not resolve"),
        (Code.TARGET_REFUSED, exceptions.TargetRefusedError, ConnectionRefusedError, "refused"),
        (Code.TARGET_UNREACHABLE, exceptions.TargetUnreachableError, ConnectionError, "no route"),
        (Code.TARGET_TIMED_OUT, exceptions.TargetTimedOutError, TimeoutError, "security groups"),
        (Code.TARGET_NOT_ALLOWED, exceptions.TargetNotAllowedError, PermissionError, "allow-list"),
        (Code.TARGET_FAILED, DialError, ConnectionError, "another reason"),
    ],
)
def test_each_way_to_miss_the_target_has_its_error(
    code: Code, kind: type[DialError], builtin: type[OSError], text: str
) -> None:
    with Bridge(Behaviour(dial_code=code)) as bridge, pytest.raises(kind, match=text) as caught:
        dial(bridge)
    assert isinstance(caught.value, builtin)
    assert caught.value.code is code
    assert caught.value.target == Target.parse(TARGET)
    assert str(caught.value).startswith("cannot reach db.internal:5432: ")


def test_a_target_off_the_bridges_list_is_not_allowed() -> None:
    with Bridge() as bridge, pytest.raises(exceptions.TargetNotAllowedError, match=r"other\.internal:80"):
        dial(bridge, target="other.internal:80")


@pytest.mark.usefixtures("three_attempts")
@pytest.mark.parametrize("code", [Code.OPENING_EXPIRED, Code.BRIDGE_ERROR, Code.KILLED])
def test_an_opening_that_is_cut_off_is_a_failed_dial_not_a_cut_tunnel(code: Code) -> None:
    answer = encode(Frame(FrameType.RESET, generation=1, payload=Reset(code, "the cause").encode()))
    with Bridge(Behaviour(answer=answer)) as bridge, pytest.raises(DialError, match="the cause") as caught:
        dial(bridge)
    assert caught.value.code is code
    assert "statement" not in str(caught.value)  # none was running


def test_a_server_that_speaks_another_version_is_told_apart() -> None:
    answer = encode(Frame(FrameType.RESET, generation=1, payload=Reset(Code.UNSUPPORTED_VERSION).encode()))
    with Bridge(Behaviour(answer=answer)) as bridge, pytest.raises(UnsupportedVersionError):
        dial(bridge)


def test_garbage_in_the_servers_stream_is_a_protocol_error() -> None:
    answer = encode(Frame(FrameType.DATA, generation=1, window=65_536, payload=b"\xff" * 600))
    with Bridge(Behaviour(answer=answer)) as bridge, pytest.raises(RemoteProtocolError):
        dial(bridge)


@pytest.mark.usefixtures("three_attempts")
def test_a_gateway_that_hangs_up_is_named_with_its_close_code() -> None:
    def hang_up(peer: Peer) -> None:
        peer.read_message()
        peer.send_close(1001, "Going away")
        peer.read_message()

    with WsServer(hang_up) as server:
        with pytest.raises(LinkClosedError, match=r"1001 \(Going away\)") as caught:
            OWN.dialer(server.url, KEY).dial(TARGET, HANG)
        assert len(server.requests) == 3  # it starts over
    assert caught.value.close_code == 1001


OVER = encode(Frame(FrameType.ENDED, generation=2, payload=Ended(Code.UNKNOWN_SESSION, 0, 0).encode()))


def reset(code: Code) -> bytes:
    return encode(Frame(FrameType.RESET, generation=1, payload=Reset(code, "the cause").encode()))


@pytest.mark.parametrize(
    "stumble",
    [None, reset(Code.RELAY_GONE), reset(Code.DIALER_GONE), reset(Code.UNKNOWN_SESSION), OVER],
    ids=["hang-up", "relay gone", "dialer gone", "unknown session", "over"],
)
def test_a_dial_that_loses_its_session_starts_over_with_a_fresh_nonce(stumble: bytes | None) -> None:
    """docs/protocol.md section 5.2: before OPENED there is nothing to resume."""
    with Bridge(Behaviour(script=echo, stumbles=[stumble, stumble])) as bridge:
        with dial(bridge) as sock:
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
        requests = [request.headers for request in bridge.server.requests]
        assert len({headers["x-emissary-nonce"] for headers in requests}) == 3
        assert not any("x-emissary-session" in headers for headers in requests)


@pytest.mark.usefixtures("three_attempts")
def test_a_session_that_is_lost_again_and_again_is_named_when_the_time_is_up() -> None:
    with Bridge(Behaviour(answer=reset(Code.RELAY_GONE))) as bridge:
        with pytest.raises(DialError, match="the cause") as caught:
            dial(bridge)
        assert len(bridge.server.requests) == 3
    assert caught.value.code is Code.RELAY_GONE


def test_a_gateway_error_during_the_opening_is_survived() -> None:
    def stumble(relay: Relay) -> None:
        relay.gateway_error()
        relay.echo = True

    with Bridge(Behaviour(script=stumble)) as bridge, dial(bridge) as sock:
        sock.sendall(b"still here")
        assert sock.recv(100) == b"still here"
