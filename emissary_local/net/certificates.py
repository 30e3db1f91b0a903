"""A certificate authority for one run, and a server certificate for loopback signed by it.

The local cloud speaks TLS with it, so that clients build ``wss://`` and ``https://`` addresses exactly as
they do on AWS, and check certificates as strictly.
"""

from __future__ import annotations

import datetime
import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trustme

#: A run is short; a day is enough.
_LIFETIME: Final = datetime.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Certificates:
    """The files of one run's authority; the paths can be handed to other processes.

    Attributes:
        ca_file: The authority's certificate (PEM): for ``AWS_CA_BUNDLE`` and ``SSL_CERT_FILE``.
        certificate_file: The server's certificate (PEM), for 127.0.0.1, ::1 and localhost.
        key_file: The server's private key (PEM), readable by its owner only.
    """

    ca_file: str
    certificate_file: str
    key_file: str

    def server_context(self) -> ssl.SSLContext:
        """A TLS 1.2 or 1.3 server (all that API Gateway speaks) with the certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.certificate_file, self.key_file)
        return context


def create_certificates(directory: str | os.PathLike[str]) -> Certificates:
    """Make a fresh authority and server certificate.

    The authority's own private key is dropped at once: nothing else can ever be signed with it.

    Args:
        directory: An existing directory for the three PEM files; the caller removes it.

    Raises:
        OSError: If a file cannot be written, or is there already.
    """
    authority = trustme.CA(organization_name="Emissary local cloud (test authority)")
    ends = datetime.datetime.now(datetime.UTC) + _LIFETIME
    server = authority.issue_cert("localhost", "127.0.0.1", "::1", not_after=ends)
    made = Certificates(*(str(Path(directory) / name) for name in ("ca.pem", "server.pem", "server.key")))
    _write(made.ca_file, authority.cert_pem)
    _write(made.certificate_file, server.cert_chain_pems[0])
    _write(made.key_file, server.private_key_pem)
    return made


def _write(path: str, content: trustme.Blob) -> None:
    """Trustme's own files would be readable by everybody."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content.bytes())
