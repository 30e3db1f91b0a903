"""A TLS handshake that fails, by cause."""

from __future__ import annotations

import ssl

import pytest

from emissary_lib.doctor import certificates
from emissary_lib.doctor.ports import Tls
from emissary_lib.doctor.report import Status
from tests.helpers.doctor import certificate_error


@pytest.mark.parametrize(
    ("number", "fact", "remedy"),
    [
        (62, "not for gateway.example", "custom domain"),
        (64, "not for gateway.example", "check the URL"),
        (18, "nobody known vouches", "SSL_CERT_FILE"),
        (19, "nobody known vouches", "proxy"),
        (20, "nobody known vouches", "SSL_CERT_FILE"),
        (10, "not valid today", "clock first"),
        (9, "not valid today", "clock first"),
        (26, "not to be trusted", "ACM"),
    ],
)
def test_a_certificate_s_fault_is_named_with_a_remedy(number: int, fact: str, remedy: str) -> None:
    told, do = certificates.explain(certificate_error(number, "openssl says"), "gateway.example")
    assert fact in told
    assert "openssl says" in told
    assert remedy in do


def test_a_server_without_tls_is_told_from_a_bad_certificate() -> None:
    error = ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number")
    error.reason = "WRONG_VERSION_NUMBER"
    fact, remedy = certificates.explain(error, "gateway.example")
    assert "does not speak TLS" in fact
    assert "ws://" in remedy


@pytest.mark.parametrize(
    ("error", "says"),
    [(TimeoutError("late"), "no answer"), (ConnectionResetError(104, "reset by peer"), "reset by peer")],
)
def test_a_handshake_that_was_cut_is_blamed_on_the_way(error: OSError, says: str) -> None:
    fact, remedy = certificates.explain(error, "gateway.example")
    assert says in fact
    assert "another network" in remedy


def test_a_certificate_without_an_end_is_fine() -> None:
    found = certificates.judge(Tls("TLSv1.2", "somebody", None), 0.0, 0.1)
    assert (found.status, found.fact) == (Status.OK, "TLSv1.2, certificate by somebody")
