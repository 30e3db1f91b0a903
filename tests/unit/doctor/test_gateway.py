"""The checks before the bridge, each way to pass and to fail."""

from __future__ import annotations

import socket
import ssl

import pytest

from emissary_lib.client.endpoint import Endpoint
from emissary_lib.doctor.checks import Status
from emissary_lib.doctor.configuration import Settings
from emissary_lib.doctor.gateway import Gateway, explain_tls_failure, judge_tls
from emissary_lib.doctor.ports import HttpAnswer, Tls
from emissary_lib.exit_status import Exit
from emissary_lib.protocol.auth.httpdate import http_date
from emissary_lib.transport.proxy import Proxy
from tests.helpers.doctor import (
    DAY,
    HOST,
    NOW,
    FakeClock,
    FakeNetwork,
    certificate_error,
    name_error,
    settings,
)

PROXY = Proxy("http", "proxy.corp", 3128, variable="https_proxy")


def checks(network: FakeNetwork, given: Settings | None = None) -> Gateway:
    return Gateway(given or settings(), network.resolve, network.connect, network.clock)


@pytest.fixture
def network() -> FakeNetwork:
    return FakeNetwork(FakeClock())


# -- DNS ----------------------------------------------------------------------------------------


def test_dns_tells_the_addresses_and_the_time(network: FakeNetwork) -> None:
    network.addresses = ("203.0.113.7", "2001:db8::7")
    found = checks(network).dns()
    assert found.status is Status.OK
    assert "203.0.113.7, 2001:db8::7" in found.fact
    assert found.seconds == pytest.approx(0.010)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (name_error(), "spelling"),
        (name_error(socket.EAI_AGAIN), "name servers do not answer"),
        (TimeoutError("late"), "name servers do not answer"),
    ],
)
def test_a_name_that_does_not_resolve_breaks_dns(network: FakeNetwork, error: OSError, says: str) -> None:
    network.unresolved = error
    found = checks(network).dns()
    assert (found.status, found.exit) == (Status.FAILED, Exit.GATEWAY_NAME)
    assert HOST in found.fact
    assert says in found.hint


@pytest.mark.parametrize("address", ["10.0.3.17", "172.31.0.9", "100.64.1.1", "fd00::17", "fe80::1%eth0"])
def test_private_addresses_of_an_execute_api_name_are_the_private_dns_trap(
    network: FakeNetwork, address: str
) -> None:
    network.addresses = (address,)
    given = settings()
    found = checks(network, given).dns()
    assert found.status is Status.WARNING
    assert "execute-api VPC endpoint with private DNS" in found.hint
    assert given.private


def test_private_addresses_of_another_name_are_no_trap(network: FakeNetwork) -> None:
    network.addresses = ("10.0.3.17",)
    found = checks(network, settings(endpoint=Endpoint("wss://tunnel.example.com/"))).dns()
    assert found.status is Status.OK


def test_one_public_address_is_enough_for_no_trap(network: FakeNetwork) -> None:
    network.addresses = ("10.0.3.17", "8.8.8.8")
    assert checks(network).dns().status is Status.OK


def test_with_a_proxy_it_is_the_proxy_that_is_looked_up_and_connected_to(network: FakeNetwork) -> None:
    given = settings(proxy_of=lambda url: PROXY)
    network.addresses = ("10.0.0.1",)
    gateway = checks(network, given)
    assert gateway.dns().status is Status.OK
    assert not given.private
    assert "the proxy" in gateway.tcp().fact
    assert network.asked == ["proxy.corp", ("10.0.0.1", 3128)]
    assert gateway.tls().status is Status.SKIPPED
    assert gateway.skew().status is Status.SKIPPED


def test_a_proxy_that_is_not_there_is_blamed_by_its_variable_and_no_firewall_is(network: FakeNetwork) -> None:
    network.down = dict.fromkeys(network.addresses, ConnectionRefusedError())
    gateway = checks(network, settings(proxy_of=lambda url: PROXY))
    gateway.dns()
    found = gateway.tcp()
    assert (found.exit, "https_proxy" in found.hint, "firewall" in found.hint) == (Exit.GATEWAY, True, False)


def test_a_proxy_that_does_not_resolve_is_blamed_by_its_variable(network: FakeNetwork) -> None:
    network.unresolved = name_error()
    found = checks(network, settings(proxy_of=lambda url: PROXY)).dns()
    assert "https_proxy" in found.hint


# -- TCP ----------------------------------------------------------------------------------------


def test_tcp_connects_to_the_first_address_that_answers_and_warns_of_the_others(network: FakeNetwork) -> None:
    network.addresses = ("2001:db8::7", "203.0.113.7")
    network.down = {"2001:db8::7": OSError(101, "Network is unreachable")}
    gateway = checks(network)
    gateway.dns()
    found = gateway.tcp()
    assert found.status is Status.WARNING
    assert "connected to the gateway at 203.0.113.7 port 443" in found.fact
    assert "2001:db8::7 port 443: Network is unreachable" in found.hint
    assert found.seconds == pytest.approx(0.020)  # of the address that answered


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (ConnectionRefusedError(111, "Connection refused"), "connection refused"),
        (TimeoutError("timed out"), "no answer in time"),
        (OSError(113, "No route to host"), "No route to host"),
    ],
)
def test_a_gateway_that_takes_no_connection_breaks_tcp(
    network: FakeNetwork, error: OSError, says: str
) -> None:
    network.down = {"203.0.113.7": error}
    gateway = checks(network)
    gateway.dns()
    found = gateway.tcp()
    assert (found.status, found.exit) == (Status.FAILED, Exit.GATEWAY)
    assert says in found.fact
    assert "firewall" in found.hint


def test_a_private_gateway_that_takes_no_connection_is_the_trap(network: FakeNetwork) -> None:
    network.addresses = ("10.0.3.17",)
    network.down = {"10.0.3.17": TimeoutError()}
    gateway = checks(network)
    gateway.dns()
    assert "private DNS" in gateway.tcp().hint


# -- TLS and clock ------------------------------------------------------------------------------


def reached(network: FakeNetwork, given: Settings | None = None) -> Gateway:
    gateway = checks(network, given)
    gateway.dns()
    gateway.tcp()
    return gateway


def test_tls_tells_version_authority_and_days_left(network: FakeNetwork) -> None:
    found = reached(network).tls()
    assert found.status is Status.OK
    assert found.fact == "TLSv1.3, certificate by Amazon RSA 2048 M02, valid for 200 more days"
    assert found.seconds == pytest.approx(0.030)


def test_a_certificate_that_runs_out_is_a_warning(network: FakeNetwork) -> None:
    network.tls = Tls("TLSv1.3", "Amazon", NOW + 3 * DAY)
    found = reached(network).tls()
    assert found.status is Status.WARNING
    assert "valid for 3 more days" in found.fact


def test_a_certificate_that_is_not_trusted_breaks_tls(network: FakeNetwork) -> None:
    network.tls_error = certificate_error(20, "unable to get local issuer certificate")
    found = reached(network).tls()
    assert (found.status, found.exit) == (Status.FAILED, Exit.GATEWAY_TLS)
    assert "not signed by a known authority" in found.fact


def test_tls_of_a_local_cloud_without_it_is_skipped(network: FakeNetwork) -> None:
    network.addresses = ("127.0.0.1",)
    found = reached(network, settings(endpoint=Endpoint("ws://127.0.0.1:8080/emissary"))).tls()
    assert found.status is Status.SKIPPED


@pytest.mark.parametrize(
    ("ahead", "status", "says"),
    [
        (0.0, Status.OK, "agree"),
        (30.0, Status.OK, "30 s ahead of"),
        (-30.0, Status.OK, "30 s behind"),
        (300.0, Status.WARNING, "300 s ahead of"),
        (-1200.0, Status.FAILED, "1200 s behind"),
        (1200.0, Status.FAILED, "at most 900 s are accepted"),
    ],
)
def test_the_clocks_are_compared(network: FakeNetwork, ahead: float, status: Status, says: str) -> None:
    gateway = reached(network)
    network.clock.ahead = ahead + 0.5  # a Date header is half a second old on average
    found = gateway.skew()
    assert found.status is status
    assert says in found.fact
    assert found.exit is (Exit.CLOCK if status is Status.FAILED else Exit.OK)
    assert ("NTP" in found.hint) == (status is not Status.OK)


@pytest.mark.parametrize(
    ("answer", "error", "says"),
    [
        (HttpAnswer(403, None), None, "it sends no date"),
        (HttpAnswer(403, "yesterday"), None, "it sends no date"),
        (None, TimeoutError("timed out"), "no answer in time"),
        (None, ConnectionResetError("gone"), "gone"),
        (None, ValueError("what answers does not speak HTTP"), "does not speak HTTP"),
    ],
)
def test_a_gateway_that_tells_no_time_is_a_warning(
    network: FakeNetwork, answer: HttpAnswer | None, error: Exception | None, says: str
) -> None:
    network.answer, network.answer_error = answer, error
    found = reached(network).skew()
    assert found.status is Status.WARNING
    assert says in found.fact


def test_the_date_that_counts_is_the_gateway_s(network: FakeNetwork) -> None:
    network.answer = HttpAnswer(426, http_date(NOW + 5000))
    assert reached(network).skew().exit is Exit.CLOCK


def test_the_connection_is_closed(network: FakeNetwork) -> None:
    gateway = reached(network)
    gateway.close()
    assert network.closed == 1
    checks(network).close()  # without one
    assert network.closed == 1


# -- TLS certificates -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "fact", "hint"),
    [
        (62, "not for gateway.example", "custom domain"),
        (64, "not for gateway.example", "check the URL"),
        (18, "not signed by a known authority", "EMISSARY_CA_FILE"),
        (19, "not signed by a known authority", "proxy"),
        (20, "not signed by a known authority", "EMISSARY_CA_FILE"),
        (10, "not valid today", "clock first"),
        (9, "not valid today", "clock first"),
        (26, "not to be trusted", "ACM"),
    ],
)
def test_a_certificate_s_fault_is_named_with_a_remedy(number: int, fact: str, hint: str) -> None:
    seen, do = explain_tls_failure(certificate_error(number, "openssl says"), "gateway.example")
    assert fact in seen
    assert "openssl says" in seen
    assert hint in do


def test_a_server_without_tls_is_told_from_a_bad_certificate() -> None:
    error = ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number")
    error.reason = "WRONG_VERSION_NUMBER"
    fact, hint = explain_tls_failure(error, "gateway.example")
    assert "does not speak TLS" in fact
    assert "ws://" in hint


@pytest.mark.parametrize(
    ("error", "says"),
    [(TimeoutError("late"), "no answer"), (ConnectionResetError(104, "reset by peer"), "reset by peer")],
)
def test_a_handshake_that_was_cut_is_blamed_on_the_way(error: OSError, says: str) -> None:
    fact, hint = explain_tls_failure(error, "gateway.example")
    assert says in fact
    assert "another network" in hint


def test_a_certificate_without_an_end_is_fine() -> None:
    found = judge_tls(Tls("TLSv1.2", "somebody", None), 0.0, 0.1)
    assert (found.status, found.fact) == (Status.OK, "TLSv1.2, certificate by somebody")
