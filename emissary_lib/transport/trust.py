"""Whom to trust for TLS, and why a certificate was not.

Python's own authorities, or with the package truststore those of the operating system, where a company's are
installed; beside them those of a file that is named.
"""

from __future__ import annotations

import importlib.util
import os
import ssl
from types import ModuleType
from typing import Any, Final

from emissary_lib.exceptions import ConfigError

#: OpenSSL's numbers of why a certificate is refused (openssl-verification-options(1), x509_vfy.h).
_NOT_YET_VALID, _EXPIRED = 9, 10
_UNKNOWN_AUTHORITY: Final = frozenset({2, 18, 19, 20, 21, 27})
_WRONG_NAME: Final = frozenset({62, 64})

#: What only X509_V_FLAG_X509_STRICT refuses: lacks in an authority's form; Python 3.13 and newer look.
_STRICT: Final = frozenset(range(79, 94))


def client_context(ca_file: str | None = None) -> ssl.SSLContext:
    """A context that checks certificate and name.

    Args:
        ca_file: PEM file of authorities to trust beside the usual ones. With it, an authority need not keep
            to every form of RFC 5280 (Python 3.13 and newer look at that): whoever names it knows it.

    Raises:
        ConfigError: The file has no authority in it.
    """
    context = _usual_context()
    if ca_file is None:
        return context
    try:
        context.load_verify_locations(ca_file)
    except (OSError, ssl.SSLError) as exc:
        said = exc.reason if isinstance(exc, ssl.SSLError) and exc.reason else exc.strerror or exc
        raise ConfigError(
            f"the file {ca_file} has no authority that can be used, in PEM: {said}; name one that has in "
            "EMISSARY_CA_FILE (or the argument ca_file), or none"
        ) from exc
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def find_truststore() -> ModuleType | None:
    """The package truststore, an extra; ``None`` if it is not there, or not for this system.

    To import what is not there would keep its name locked during the search, with every call: a child that
    is forked meanwhile would wait for it for ever.
    """
    if importlib.util.find_spec("truststore") is None:
        return None
    try:
        import truststore
    except ImportError:
        return None
    found: ModuleType = truststore
    return found


def _usual_context() -> ssl.SSLContext:
    truststore = find_truststore()
    if truststore is None:
        return ssl.create_default_context()
    made: ssl.SSLContext = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return made


def describe_authorities() -> str:
    """Where the usual authorities come from, in words."""
    if (truststore := find_truststore()) is not None:
        return f"the operating system's (truststore {truststore.__version__})"
    paths = ssl.get_default_verify_paths()
    places = [place for place in (paths.cafile, paths.capath) if place]
    return f"Python's: {' and '.join(places)}" if places else "none: this Python finds no file of authorities"


def explain_certificate(exc: ssl.SSLCertVerificationError, host: str) -> tuple[str, str]:
    """What is wrong with a certificate, and what to do.

    Args:
        exc: As OpenSSL tells it.
        host: Whose it should be.
    """
    said = exc.verify_message or str(exc)
    if exc.verify_code in _WRONG_NAME:
        return (
            f"the certificate is not for {host}: {said}",
            "check the URL; for a custom domain see that its DNS points at its own API Gateway domain name",
        )
    if exc.verify_code in _UNKNOWN_AUTHORITY:
        return f"the certificate is not signed by a known authority: {said}", _missing_authority()
    if exc.verify_code in (_EXPIRED, _NOT_YET_VALID):
        return (
            f"the certificate is not valid today: {said}",
            "check this machine's clock first, then the certificate in ACM",
        )
    if exc.verify_code in _STRICT:
        return (
            f"the certificate's authority is not in the form that Python 3.13 and newer ask for: {said}",
            "if it is your company's, which inspects TLS, name its PEM file in EMISSARY_CA_FILE: then the "
            "form does not count",
        )
    return f"the certificate is not to be trusted: {said}", "check the URL, and the certificate in ACM"


def _missing_authority() -> str:
    path = os.environ.get("SSL_CERT_FILE")
    if path and not os.path.exists(path):
        return f"SSL_CERT_FILE names {path}, which is not there; correct or unset it"
    if path and not ssl.create_default_context().cert_store_stats()["x509_ca"]:
        return f"SSL_CERT_FILE names {path}, in which there is no authority; correct or unset it"
    if not any(_found_authorities()):
        return (
            "this Python knows no authorities at all: install the system's (package ca-certificates; on "
            "macOS Python's own \"Install Certificates.command\"), or pip install 'emissary-lib[truststore]'"
        )
    return (
        "a proxy may intercept TLS: name its authority's PEM file in EMISSARY_CA_FILE, or trust the "
        "operating system's (pip install 'emissary-lib[truststore]'); a local cloud prints its own"
    )


def _found_authorities() -> tuple[Any, ...]:
    paths = ssl.get_default_verify_paths()
    return paths.cafile, paths.capath and os.listdir(paths.capath)
