"""The doctor at the original's server: by the code that dials, against a server as its authors publish it."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable

import pytest

from emissary_lib.client.settings import SettingsReader
from emissary_lib.doctor.checks import Report, Status
from emissary_lib.doctor.configuration import Settings
from emissary_lib.doctor.run import CHECKS, examine
from emissary_lib.doctor.service_probes import REDIS, ServiceProbe
from emissary_lib.exit_status import Exit
from emissary_lib.protocol.auth.keys import Key, format_keys
from emissary_lib.protocol.targets.allow_list import Target
from tests.helpers.doctor import no_proxy
from tests.helpers.original import KEY, OriginalServer
from tests.helpers.servers import Server, echo, sink, unused_port
from tests.helpers.ws_server import BINARY, Peer, WsServer


def ask(
    url: str,
    target: tuple[str, int] | None = None,
    service: ServiceProbe | None = None,
    *,
    key: Key = KEY,
    timeout: float = 20.0,
) -> Report:
    environ = {"EMISSARY_URL": url, "EMISSARY_AUTH_KEYS": format_keys([key])}
    settings = Settings(SettingsReader(environ, default_file=None), no_proxy, timeout)
    return examine(settings, Target(*target) if target else None, service)


def outcome(report: Report, name: str) -> tuple[Status, str]:
    (found,) = (each.finding for each in report.results if each.name == name)
    return found.status, found.fact


def redis(connection: socket.socket) -> None:
    while connection.recv(1000):
        connection.sendall(b"+PONG\r\n")


def test_all_is_well_with_a_target() -> None:
    with Server(redis) as target, OriginalServer([target], version="v1.2") as server:
        report = ask(server.url, target, REDIS)
    assert (report.failed_check, report.exit) == (None, Exit.OK)
    assert outcome(report, "connect") == (
        Status.OK,
        "the server takes WebSockets, but knows no emissary.v2: the original may be there",
    )
    assert outcome(report, "answer") == (Status.OK, "the original Emissary is there, and accepts key id 7")
    assert outcome(report, "version") == (
        Status.OK,
        "protocol 1 of the original Emissary, emissary-server v1.2",
    )
    assert outcome(report, "allowed") == (Status.OK, f"{Target(*target)} is on the allow-list")
    assert outcome(report, "target") == (Status.OK, f"the server is connected to {Target(*target)}")
    assert outcome(report, "service")[0] is Status.OK
    skipped = {each.name for each in report.results if each.finding.status is Status.SKIPPED}
    assert skipped == {"tls", "proof", "health", "long_messages", "relay", "round_trip", "warm"}


def test_without_a_target_the_key_is_tried_all_the_same() -> None:
    with OriginalServer() as server:
        report = ask(server.url)
        assert report.exit is Exit.OK
        assert outcome(report, "answer")[0] is Status.OK
        assert len(report.results) == len(CHECKS)
        refused = ask(server.url, key=Key(7, bytes(16)))
    assert refused.exit is Exit.KEY
    assert refused.failed_check
    assert refused.failed_check.name == "answer"


@pytest.mark.parametrize(
    ("serve", "exit", "said"),
    [
        (lambda peer: peer.send_frame(BINARY, b"\x0a\x05nginx"), Exit.BRIDGE, "calls itself 'nginx'"),
        (lambda peer: None, Exit.BRIDGE, "without a Close frame"),
        (
            lambda peer: contextlib.suppress(OSError) and peer.read_frame(),
            Exit.BRIDGE,
            "did not answer within 0.3 s",
        ),
    ],
    ids=["another", "none", "silent"],
)
def test_who_is_no_original_either_is_told_so(serve: Callable[[Peer], None], exit: Exit, said: str) -> None:
    with WsServer(serve, subprotocol=None) as server:
        # What only asks for the time is no WebSocket's.
        server.answering(lambda request: None if "upgrade" in request.headers else b"HTTP/1.1 400 No\r\n\r\n")
        report = ask(server.url, timeout=0.3)
    assert report.exit is exit
    assert said in outcome(report, "answer")[1]


def test_a_target_off_the_list_or_not_reached_breaks_its_own_check() -> None:
    with Server(echo) as other, unused_port() as closed, OriginalServer([closed]) as server:
        refused = ask(server.url, other)
        assert refused.exit is Exit.NOT_ALLOWED
        assert refused.failed_check
        assert refused.failed_check.name == "allowed"
        broken = ask(server.url, closed)
        assert broken.failed_check
        assert broken.failed_check.name == "target"
        assert outcome(broken, "allowed") == (Status.OK, f"{Target(*closed)} was not refused")
        unknown = ask(server.url, ("nowhere.internal", 5432))
        assert unknown.failed_check
        assert unknown.failed_check.name == "target"
        assert outcome(unknown, "name")[0] is Status.SKIPPED


def test_a_target_that_never_answers_is_a_failure_of_the_service_or_the_target() -> None:
    with Server(sink) as target, OriginalServer([target]) as server:
        silent = ask(server.url, target, REDIS, timeout=1.0)
        assert silent.exit is Exit.SERVICE
        assert "silent for 1 s" in outcome(silent, "service")[1]
        unasked = ask(server.url, target)
        assert unasked.exit is Exit.OK
        assert "give --service" in outcome(unasked, "service")[1]


def test_a_target_that_hangs_up_is_a_failure_of_the_service() -> None:
    with Server(lambda connection: None) as target, OriginalServer([target]) as server:
        report = ask(server.url, target, REDIS)
    assert report.exit is Exit.SERVICE
