"""The dialer's link: what it shows when it comes back (docs/protocol.md section 5.2)."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

import pytest

from emissary_lib.client.endpoint import Endpoint
from emissary_lib.client.resume import ResumeUpgrade
from emissary_lib.exceptions import ClockSkewError, GatewayRefusedError, LinkClosedError, LinkRefusedError
from emissary_lib.protocol.auth.headers import ConnectHeaders, ResumeHeaders
from emissary_lib.protocol.auth.httpdate import http_date
from emissary_lib.protocol.auth.keys import Key
from emissary_lib.protocol.auth.macs import resume_mac, signed_host
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.session.session import Outgoing
from emissary_lib.transport.deadline import Deadline
from emissary_lib.transport.reconnecting import ReconnectingTransport
from emissary_lib.tunnel.link import SocketLink
from tests.helpers.patience import HANG
from tests.helpers.ws_server import Peer, Request, WsServer, refusal

KEY = Key(7, b"0123456789abcdef0123456789abcdef")
SESSION = "ab" * 32
TOKEN = bytes(range(32))


@dataclass
class Gateway:
    """Answers upgrades by a list of statuses, then with 101; echoes messages."""

    statuses: list[int] = field(default_factory=list)

    def answer(self, _request: Request) -> bytes | None:
        return refusal(self.statuses.pop(0)) if self.statuses else None

    def serve(self, peer: Peer) -> None:
        while (text := peer.read_message()) is not None:
            peer.send_text(text)


class Stall:
    """Answers the first upgrade; one that comes back is kept waiting.

    Attributes:
        entered: Set once there is such a one.
        leave: Set it to let it go.
    """

    def __init__(self) -> None:
        self.entered, self.leave = threading.Event(), threading.Event()

    def __call__(self, request: Request) -> bytes | None:
        if request.headers["x-emissary-epoch"] != "1":
            self.entered.set()
            self.leave.wait(HANG)
        return None


def linked(server: WsServer) -> SocketLink:
    """A link whose first connection is epoch 1, opened by the same upgrade for simplicity."""
    upgrade = ResumeUpgrade(Endpoint(server.url), KEY, SESSION, TOKEN)
    return SocketLink(ReconnectingTransport(upgrade.connect(1, Deadline(HANG)), upgrade.connect))


def end(link: SocketLink) -> None:
    link.close()
    link.release()


def test_bridge_and_peer_are_both_reached_over_the_websocket() -> None:
    gateway = Gateway()
    with WsServer(gateway.serve) as server:
        link = linked(server)
        for to_bridge in (False, True):
            link.send(Outgoing(b"%d" % to_bridge, to_bridge=to_bridge))
            assert link.recv() == b"%d" % to_bridge
        end(link)


def test_each_attempt_is_signed_anew_with_its_epoch_session_and_token() -> None:
    gateway = Gateway()
    with WsServer(gateway.serve) as server:
        link = linked(server)
        link.reconnect(2, Deadline(HANG))
        link.reconnect(70_000, Deadline(HANG))
        link.send(Outgoing(b"after", to_bridge=False))
        assert link.recv() == b"after"
        end(link)
        headers = [request.headers for request in server.requests]
    shown = [(ConnectHeaders.from_headers(each), ResumeHeaders.from_headers(each)) for each in headers]
    assert [resume for _door, resume in shown] == [
        ResumeHeaders(SESSION, TOKEN, epoch) for epoch in (1, 2, 70_000)
    ]
    assert len({signed.nonce for signed, _resume in shown}) == 3
    host = signed_host(headers[0]["host"])
    for signed, resume in shown:
        mac = resume_mac(
            KEY, date=signed.date, nonce=signed.nonce, host=host, session=SESSION, epoch=resume.epoch
        )
        assert (signed.key_id, signed.mac) == (KEY.key_id, mac)


def test_a_session_that_is_over_is_a_definite_refusal_and_throttling_is_not() -> None:
    gateway = Gateway()
    with WsServer(gateway.serve, answer=gateway.answer) as server:
        link = linked(server)
        gateway.statuses += [429, 503, 409]
        for status in (429, 503):
            with pytest.raises(GatewayRefusedError, match=f"HTTP status {status}"):
                link.reconnect(2, Deadline(HANG))
        with pytest.raises(LinkRefusedError, match=r"the session is over: .*HTTP status 409"):
            link.reconnect(3, Deadline(HANG))
        end(link)


def refused_with(status: int, *, date: str | None = None) -> LinkRefusedError:
    gateway = Gateway()
    with WsServer(gateway.serve, answer=lambda request: answers.pop(0)) as server:
        answers: list[bytes | None] = [
            None,
            refusal(status, *([] if date is None else [f"Date: {date}"])),
        ]
        link = linked(server)
        with pytest.raises(LinkRefusedError) as caught:
            link.reconnect(2, Deadline(HANG))
        end(link)
    assert caught.value.code is Code.AUTHENTICATION_FAILED
    return caught.value


def test_a_clock_that_is_wrong_is_named_when_a_session_comes_back() -> None:
    """Symptom: "the session is over: HTTP status 403" (UNKNOWN_SESSION), without cause or advice."""
    refused = refused_with(403, date=http_date(time.time() - 3600))
    assert "set the dialer's clock" in str(refused)
    assert isinstance(refused.__cause__, ClockSkewError)
    assert refused.certain


def test_a_key_that_is_not_accepted_any_more_is_named_when_a_session_comes_back() -> None:
    refused = refused_with(403, date=http_date(time.time()))
    assert "key id 7 is unknown there" in str(refused)
    assert "compare EMISSARY_AUTH_KEYS" in str(refused)
    assert not refused.certain  # the gateway has a 403 of its own


def test_headers_that_were_lost_on_the_way_are_named_when_a_session_comes_back() -> None:
    refused = refused_with(401)
    assert "a proxy on the way drops the X-Emissary-* headers" in str(refused)
    assert refused.certain


def test_an_attempt_keeps_its_deadline() -> None:
    stall = Stall()
    with WsServer(Gateway().serve, answer=stall) as server:
        link = linked(server)
        with pytest.raises(TimeoutError):
            link.reconnect(2, Deadline(0.2))
        stall.leave.set()
        end(link)


def test_closing_ends_an_attempt_that_waits_for_the_gateway() -> None:
    """A tunnel that is over must not wait for the ten seconds that an attempt may take."""
    stall = Stall()
    with WsServer(Gateway().serve, answer=stall) as server:
        link = linked(server)
        ended: list[type[Exception]] = []

        def attempt() -> None:
            try:
                link.reconnect(2, Deadline(10 * HANG))
            except Exception as exc:
                ended.append(type(exc))

        thread = threading.Thread(target=attempt)
        thread.start()
        assert stall.entered.wait(HANG)
        link.close()
        thread.join(HANG)
        stall.leave.set()
        link.release()
    assert ended == [TimeoutError]


@pytest.mark.parametrize("how", ["drop", "close"])
def test_dropping_or_closing_wakes_the_reader(how: str) -> None:
    gateway = Gateway()
    with WsServer(gateway.serve) as server:
        link = linked(server)
        raised: list[Exception] = []

        def read() -> None:
            try:
                link.recv()
            except LinkClosedError as exc:
                raised.append(exc)

        reader = threading.Thread(target=read)
        reader.start()
        getattr(link, how)()
        reader.join(HANG)
        assert len(raised) == 1
        end(link)
