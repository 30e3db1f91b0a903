"""The doctor's own sockets: what it does before, and beside, a dial."""

from __future__ import annotations

import contextlib
import email.message
import email.parser
import socket
import ssl
import threading
import time
from typing import Final

from emissary_lib.doctor.ports import HttpAnswer, Tls
from emissary_lib.protocol.wire.text import clean
from emissary_lib.transport.deadline import Deadline

#: Longest head of an answer that is read, in bytes.
_MAX_HEAD: Final = 16_384


class SystemClock:
    """The machine's clocks."""

    def monotonic(self) -> float:
        """Seconds, for durations."""
        return time.monotonic()

    def unix(self) -> float:
        """Seconds since 1970 UTC."""
        return time.time()


def resolve(host: str, timeout: float) -> tuple[str, ...]:
    """See :class:`emissary_lib.doctor.ports.Resolver`.

    In a thread of its own, because a name server cannot be interrupted; one that does not answer in time is
    left behind in it.
    """
    found: list[str] = []
    failure: list[OSError] = []

    def ask() -> None:
        try:
            answers = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except OSError as exc:
            failure.append(exc)
        except UnicodeError as exc:  # a label that is empty or too long
            failure.append(socket.gaierror(socket.EAI_NONAME, f"no name at all: {exc}"))
        else:
            found.extend(dict.fromkeys(str(address[0]) for *_rest, address in answers))

    thread = threading.Thread(target=ask, name="emissary-doctor-dns", daemon=True)
    thread.start()
    thread.join(timeout)
    if failure:
        raise failure[0]
    if not found:
        raise TimeoutError("the name server did not answer in time")
    return tuple(found)


def connect(address: str, port: int, timeout: float) -> TcpConnection:
    """See :class:`emissary_lib.doctor.ports.Connector`."""
    return TcpConnection(socket.create_connection((address, port), timeout))


class TcpConnection:
    """See :class:`emissary_lib.doctor.ports.Connection`."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def secure(self, host: str, context: ssl.SSLContext | None, timeout: float) -> Tls:
        """Start TLS; without a context, with the system's certificates."""
        self._sock.settimeout(timeout)
        secure = (context or ssl.create_default_context()).wrap_socket(self._sock, server_hostname=host)
        self._sock = secure
        certificate = secure.getpeercert() or {}
        expires = certificate.get("notAfter")
        return Tls(
            secure.version() or "TLS",
            _common_name(certificate.get("issuer")),
            ssl.cert_time_to_seconds(expires) if isinstance(expires, str) else None,
        )

    def ask(self, host: str, path: str, timeout: float) -> HttpAnswer:
        """Send a plain GET, and read the head of its answer."""
        deadline = Deadline(timeout)
        self._sock.settimeout(timeout)
        request = (
            f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: emissary-doctor\r\nConnection: close\r\n\r\n"
        )
        self._sock.sendall(request.encode("ascii"))
        head = b""
        while b"\r\n\r\n" not in head and len(head) < _MAX_HEAD:
            left = deadline.remaining()
            if not left:
                raise TimeoutError("timed out")
            self._sock.settimeout(left)
            data = self._sock.recv(_MAX_HEAD)
            if not data:
                raise ConnectionResetError("the connection ended before there was an answer")
            head += data
        return _answer(head.partition(b"\r\n\r\n")[0].decode("latin-1"))

    def close(self) -> None:
        """Close the socket. Idempotent."""
        with contextlib.suppress(OSError):
            self._sock.close()


def _answer(head: str) -> HttpAnswer:
    line, _, fields = head.partition("\r\n")
    protocol, _, rest = line.partition(" ")
    status = rest[:3]
    if not protocol.startswith("HTTP/") or not (status.isascii() and status.isdigit()):
        raise ValueError("what answers does not speak HTTP")
    headers: email.message.Message = email.parser.Parser().parsestr(fields, headersonly=True)
    return HttpAnswer(int(status), headers.get("Date"))


def _common_name(name: object) -> str:
    """The most telling part of a certificate's name, as ``getpeercert`` has it."""
    if not isinstance(name, tuple):
        return "unknown"
    parts = {key: value for group in name for key, value in group}
    return clean(str(parts.get("commonName") or parts.get("organizationName") or "unknown"))
