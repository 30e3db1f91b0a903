"""Whom to trust: an authority's file, the system's store, and why a certificate was refused."""

from __future__ import annotations

import datetime
import os
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from emissary_lib.exceptions import ConfigError, GatewayUnreachableError
from emissary_lib.transport.deadline import Deadline
from emissary_lib.transport.trust import client_context, describe_authorities
from emissary_lib.transport.websocket import connect
from tests.helpers.patience import HANG
from tests.helpers.ws_server import WsServer


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    """One whose certificate is in ``ca.pem``."""
    made = trustme.CA()
    made.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return made


@pytest.fixture(params=["python", "truststore"])
def _either_store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The usual authorities are Python's, and then the operating system's."""
    if request.param == "python":
        monkeypatch.setitem(sys.modules, "truststore", None)


def server_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    return context


def reach(server: WsServer, context: ssl.SSLContext) -> None:
    transport = connect(server.url, headers={}, deadline=Deadline(HANG), ssl_context=context)
    transport.abort()
    transport.release()


def inspecting(directory: Path) -> tuple[str, ssl.SSLContext]:
    """An authority as devices that inspect TLS have them: no key usage, no critical basic constraints."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Corporate TLS inspection")])
    day = datetime.timedelta(days=1)

    def builder(subject: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        made = x509.CertificateBuilder().issuer_name(name).subject_name(subject).public_key(public)
        return made.serial_number(7).not_valid_before(now - day).not_valid_after(now + day)

    authority = builder(name, key.public_key())
    authority = authority.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=False)
    ca_file, leaf_file = directory / "corporate.pem", directory / "leaf.pem"
    ca_file.write_bytes(authority.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
    own = ec.generate_private_key(ec.SECP256R1())
    leaf = builder(x509.Name([]), own.public_key())
    leaf = leaf.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=True)
    leaf_file.write_bytes(
        own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        + leaf.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(leaf_file)
    return str(ca_file), context


@pytest.mark.usefixtures("_either_store")
def test_an_authority_in_a_file_is_trusted_beside_the_usual_ones(
    authority: trustme.CA, tmp_path: Path
) -> None:
    with WsServer(ssl_context=server_context(authority)) as server:
        reach(server, client_context(str(tmp_path / "ca.pem")))
        with pytest.raises(
            GatewayUnreachableError, match=r"not signed by a known authority: .*EMISSARY_CA_FILE"
        ):
            reach(server, client_context())


@pytest.mark.usefixtures("_either_store")
def test_the_variable_of_openssl_is_followed(
    authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with WsServer(ssl_context=server_context(authority)) as server:
        reach(server, client_context())


def test_a_name_that_is_not_the_certificate_s_is_refused_in_either_case(
    authority: trustme.CA, tmp_path: Path
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("other.example").configure_cert(context)
    with WsServer(ssl_context=context) as server:
        with pytest.raises(GatewayUnreachableError, match="the certificate is not for localhost"):
            reach(server, client_context(str(tmp_path / "ca.pem")))


def test_the_form_of_an_authority_that_was_named_does_not_count(tmp_path: Path) -> None:
    ca_file, context = inspecting(tmp_path)
    with WsServer(ssl_context=context) as server:
        reach(server, client_context(ca_file))
        strict = ssl.create_default_context(cafile=ca_file)
        strict.verify_flags |= ssl.VERIFY_X509_STRICT  # the default of Python 3.13
        with pytest.raises(
            GatewayUnreachableError, match=r"not in the form that Python 3\.13 .*EMISSARY_CA_FILE"
        ):
            reach(server, strict)


def test_a_variable_that_names_nothing_is_the_cause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "absent.pem"))
    with WsServer(ssl_context=server_context(trustme.CA())) as server:
        with pytest.raises(
            GatewayUnreachableError, match=r"SSL_CERT_FILE names .*absent\.pem, which is not there"
        ):
            reach(server, client_context())


def test_a_variable_that_names_a_file_without_authorities_is_the_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty.pem").touch()
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "empty.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "absent"))
    with WsServer(ssl_context=server_context(trustme.CA())) as server:
        with pytest.raises(GatewayUnreachableError, match=r"empty\.pem, in which there is no authority"):
            reach(server, client_context())


@pytest.mark.parametrize("content", ["", "no certificate", None])
def test_a_file_without_an_authority_is_named(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    with pytest.raises(
        ConfigError, match=rf"the file {file} has no authority that can be used, in PEM: .*EMISSARY_CA_FILE"
    ):
        client_context(str(file))


def test_where_the_usual_authorities_come_from_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "truststore" in describe_authorities()
    monkeypatch.setitem(sys.modules, "truststore", None)
    assert describe_authorities().startswith(("Python's: ", "none: "))


FORKS_DURING_THE_SEARCH = f"""
import os, sys, threading, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads, which is what this is about
from emissary_lib.transport.trust import client_context

class Finders(list):
    def __iter__(self):
        if os.getpid() == parent and threading.current_thread() is not threading.main_thread():
            searches.set()
            threading.Event().wait()  # for ever
        return super().__iter__()

class NoFinder:
    def find_spec(self, name, path=None, target=None):
        return None  # there is no truststore here

parent, searches = os.getpid(), threading.Event()
sys.meta_path = Finders([NoFinder()])
threading.Thread(target=client_context, daemon=True).start()
assert searches.wait({HANG})
pid = os.fork()
if not pid:
    client_context()
    os._exit(7)
os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_child_that_is_forked_while_another_thread_looks_for_an_extra_has_its_own_look() -> None:
    """Symptom: it waited for ever for the thread that was looking for truststore, which was not there."""
    done = subprocess.run(
        [sys.executable, "-c", FORKS_DURING_THE_SEARCH], capture_output=True, text=True, timeout=HANG
    )
    assert (done.returncode, done.stderr) == (7, "")
