"""What a TLS handshake, or its failure, says of the gateway."""

from __future__ import annotations

import ssl
from typing import Final

from emissary_lib.doctor.ports import Tls
from emissary_lib.doctor.report import Finding, ok, warning

#: Days before its end at which a certificate should have been renewed: ACM begins 60 days before.
RENEW_DAYS: Final = 14

_DAY: Final = 86_400.0

#: OpenSSL's numbers (x509_vfy.h), as ``SSLCertVerificationError.verify_code`` has them.
_NOT_YET_VALID: Final = 9
_EXPIRED: Final = 10
_UNKNOWN_AUTHORITY: Final = frozenset({2, 18, 19, 20, 21})
_WRONG_NAME: Final = frozenset({62, 64})


def judge(told: Tls, unix_now: float, seconds: float) -> Finding:
    """A handshake that succeeded."""
    fact = f"{told.version}, certificate by {told.issuer}"
    if told.expires is None:
        return ok(fact, seconds)
    days = (told.expires - unix_now) / _DAY
    fact += f", valid for {days:.0f} more days"
    if days < RENEW_DAYS:
        return warning(fact, "the certificate runs out: see in ACM why it is not renewed", seconds)
    return ok(fact, seconds)


def explain(exc: OSError, host: str) -> tuple[str, str]:
    """A handshake that failed: the fact, and what to do."""
    if isinstance(exc, ssl.SSLCertVerificationError):
        return _explain_certificate(exc, host)
    if isinstance(exc, TimeoutError):
        return "no answer to the TLS handshake", "a firewall may drop it: try from another network"
    if isinstance(exc, ssl.SSLError) and exc.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST"):
        return (
            "what answers there does not speak TLS",
            "check the URL's port; a local cloud without TLS has ws://",
        )
    return (
        f"the TLS handshake failed: {exc.strerror or exc}",
        "a firewall or an intercepting proxy may have cut it: try from another network",
    )


def _explain_certificate(exc: ssl.SSLCertVerificationError, host: str) -> tuple[str, str]:
    said = exc.verify_message or str(exc)
    if exc.verify_code in _WRONG_NAME:
        return (
            f"the certificate is not for {host}: {said}",
            "check the URL; for a custom domain see that its DNS points at its own API Gateway domain name",
        )
    if exc.verify_code in _UNKNOWN_AUTHORITY:
        return (
            f"nobody known vouches for the certificate: {said}",
            "a proxy may intercept TLS: name its authority in SSL_CERT_FILE; a local cloud prints its own",
        )
    if exc.verify_code in (_EXPIRED, _NOT_YET_VALID):
        return (
            f"the certificate is not valid today: {said}",
            "check this machine's clock first, then the certificate in ACM",
        )
    return f"the certificate is not to be trusted: {said}", "check the URL, and the certificate in ACM"
