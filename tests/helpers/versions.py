"""The version before: kept as a file, so that an upgrade can be tried without the history.

``tests/versions/`` holds what ``git archive`` gives of one commit, compressed: a clean checkout has all that
is needed, a shallow one too. It is the last version without shared relays and short messages. Once there are
releases, the oldest one that is supported is to take its place::

    git archive COMMIT LICENSE emissary_lib functions template.yaml | xz -9e > tests/versions/COMMIT.tar.xz
"""

from __future__ import annotations

import contextlib
import pathlib
import socket
import ssl
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import trustme

from emissary_local import LocalCloud
from tests.helpers.patience import HANG
from tests.helpers.proxies import http_proxy
from tests.helpers.servers import Server
from tests.helpers.tls_front import pass_on
from tools.artifacts import artifact, packages
from tools.artifacts.__main__ import CACHE, LOCK

#: The commit of what is kept.
COMMIT: Final = "8f9c36cc3fed"

KEPT: Final = pathlib.Path(__file__).resolve().parents[1] / "versions" / f"{COMMIT}.tar.xz"

#: What its artifacts were built by: it used the SDK that Lambda brings, and Powertools by its short names.
RULES: Final = artifact.Rules(bare=(), brought=("boto3", "botocore"), max_bytes=6_000_000)

FUNCTIONS: Final = ("ConnectFunction", "DefaultFunction", "DisconnectFunction", "RelayFunction")
HANDLERS: Final = FUNCTIONS[:3]

#: A name that nobody has (RFC 2606).
HOST: Final = "emissary.example"


@dataclass(frozen=True, slots=True)
class Version:
    """One version of Emissary.

    Attributes:
        tree: Folder with its ``emissary_lib``, its template and its functions' source.
        artifacts: Folder with its functions' artifacts.
    """

    tree: pathlib.Path
    artifacts: pathlib.Path

    @property
    def template(self) -> pathlib.Path:
        """What is deployed."""
        return self.tree / "template.yaml"


def unpack(folder: pathlib.Path) -> None:
    """Put the tree of the version that is kept into a folder."""
    with tarfile.open(KEPT) as archive:
        archive.extractall(folder, filter="data")


def version_before(folder: pathlib.Path) -> Version:
    """Unpack the version that is kept, and build its artifacts.

    Its third-party packages are those of today's lock: the version before is there for what it says to its
    peers, and a second set of packages would have to be fetched.

    Args:
        folder: An empty one.
    """
    version = Version(folder / "tree", folder / "artifacts")
    unpack(version.tree)
    site = packages.install(LOCK, CACHE)
    for function in FUNCTIONS:
        into = version.artifacts / function
        artifact.build(function, into, root=version.tree, packages=site, rules=RULES)
    return version


@dataclass(frozen=True, slots=True)
class Front:
    """Where a cloud is, as on AWS: at a name, behind TLS, at the port 443.

    Attributes:
        url: The gateway's.
        proxy: Port on 127.0.0.1 of the HTTP proxy by which the name can be reached.
        ca_file: PEM file of the authority behind the certificate.
    """

    url: str
    proxy: int
    ca_file: str


@contextlib.contextmanager
def front_of(cloud: LocalCloud, folder: pathlib.Path) -> Iterator[Front]:
    """Have a cloud where API Gateway would be: versions differ in whether they sign a port other than 443."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(HOST).configure_cert(context)
    gateway, _, stage = cloud.url.removeprefix("ws://").partition("/")
    address = ("127.0.0.1", int(gateway.rpartition(":")[2]))
    greet = http_proxy()

    def serve(sock: socket.socket) -> None:
        sock.settimeout(HANG)
        asked, answer, _granted = greet(sock)
        assert asked == f"{HOST}:443"
        sock.sendall(answer)
        sock.settimeout(None)
        with socket.create_connection(address) as back, context.wrap_socket(sock, server_side=True) as front:
            pass_on(front, back)

    with Server(serve) as (_host, port):
        yield Front(f"wss://{HOST}/{stage}", port, str(folder / "ca.pem"))
