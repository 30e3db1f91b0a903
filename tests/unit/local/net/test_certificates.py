"""certificates: a client that trusts the run's authority, and only that client, can speak to the server."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

import pytest

from emissary_local.net.certificates import Certificates, create_certificates


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return create_certificates(tmp_path_factory.mktemp("tls"))


def handshake(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> str | None:
    """Run a TLS handshake in memory; the version agreed on."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    while ends:
        for end in list(ends):
            try:
                end.do_handshake()
                ends.remove(end)
                version = end.version()
            except ssl.SSLWantReadError:
                continue
    return version


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "::1"])
def test_loopback_names_are_covered(made: Certificates, name: str) -> None:
    assert (
        handshake(made.server_context(), ssl.create_default_context(cafile=made.ca_file), name) == "TLSv1.3"
    )


def test_strict_checking_as_in_python_3_13_is_satisfied(made: Certificates) -> None:
    client = ssl.create_default_context(cafile=made.ca_file)
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    assert handshake(made.server_context(), client, "localhost") == "TLSv1.3"


def test_another_name_is_refused(made: Certificates) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        handshake(made.server_context(), ssl.create_default_context(cafile=made.ca_file), "example.com")


def test_another_runs_authority_is_not_trusted(made: Certificates, tmp_path: Path) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(
            made.server_context(),
            ssl.create_default_context(cafile=create_certificates(tmp_path).ca_file),
            "localhost",
        )


def test_the_private_key_is_readable_by_its_owner_only(made: Certificates) -> None:
    assert os.stat(made.key_file).st_mode & 0o777 == 0o600


def test_existing_files_are_not_overwritten(tmp_path: Path) -> None:
    create_certificates(tmp_path)
    with pytest.raises(FileExistsError):
        create_certificates(tmp_path)
