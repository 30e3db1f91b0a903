"""Whom the functions' TLS connections trust."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping


def trust(environ: Mapping[str, str] = os.environ) -> ssl.SSLContext:
    """TLS settings that check the server against ``AWS_CA_BUNDLE``, or the system's authorities.

    OpenSSL itself reads ``SSL_CERT_FILE``. Takes some 20 ms of CPU: make one for each environment.
    """
    return ssl.create_default_context(cafile=environ.get("AWS_CA_BUNDLE") or None)
