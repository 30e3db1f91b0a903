"""What the checks need from outside; tests put others in place."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from emissary_lib.protocol.opening.banner import Banner
from emissary_lib.protocol.targets.allow_list import Target

T = TypeVar("T")


class Clock(Protocol):
    """Both clocks."""

    def monotonic(self) -> float:
        """Seconds, for durations."""

    def unix(self) -> float:
        """Seconds since 1970 UTC."""


class Resolver(Protocol):
    """Looks names up."""

    def __call__(self, host: str, timeout: float) -> tuple[str, ...]:
        """The name's addresses, at least one, in the order in which to try them.

        Raises:
            OSError: It has none, or nobody could be asked.
            TimeoutError: No answer in time.
        """


@dataclass(frozen=True, slots=True)
class Tls:
    """A TLS handshake that succeeded.

    Attributes:
        version: ``TLSv1.3``.
        issuer: Who vouches for the certificate.
        expires: When it expires, in seconds since 1970 UTC; ``None`` if that is not known.
    """

    version: str
    issuer: str
    expires: float | None


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """The head of an answer to a plain GET."""

    status: int
    date: str | None


class Connection(Protocol):
    """A TCP connection to the gateway."""

    def secure(self, host: str, context: ssl.SSLContext | None, timeout: float) -> Tls:
        """Start TLS and check the certificate.

        Raises:
            ssl.SSLCertVerificationError: The certificate is not to be trusted.
            OSError: Something else; ``ssl.SSLError`` and ``TimeoutError`` are among them.
        """

    def ask(self, host: str, path: str, timeout: float) -> HttpAnswer:
        """Send a plain GET.

        Raises:
            OSError: No answer.
            ValueError: The answer is no HTTP.
        """

    def close(self) -> None:
        """Close it. Idempotent."""


class Connector(Protocol):
    """Connects."""

    def __call__(self, address: str, port: int, timeout: float) -> Connection:
        """A TCP connection.

        Raises:
            OSError: There is none.
        """


class Probe(Protocol):
    """One session, step by step: the upgrade, then its proof or a dial or both, then the rest.

    Each step raises what a dial raises there.
    """

    @property
    def gateway_errors(self) -> int:
        """How many error messages the gateway has put in so far."""

    @property
    def relay_spoke(self) -> bool:
        """Whether a relay has said anything."""

    def connect_once(self, timeout: float) -> None:
        """Connect once. Raises what :func:`emissary_lib.client.handshake.connect_once` raises.

        OriginalServerError, whose connection was closed, if the server accepts no subprotocol.
        """

    def connect_with_retry(self, timeout: float) -> None:
        """Connect as a dial does: again and again while the gateway throttles or fails.

        Raises what :func:`emissary_lib.client.handshake.connect_with_retry` raises.
        """

    def prove(self, timeout: float) -> Banner:
        """Have the server prove itself. Raises what :meth:`.Handshake.prove` raises."""

    def dial(self, target: Target, timeout: float) -> None:
        """Have a relay reach the target. Raises what :meth:`.Handshake.run` raises."""

    def ping(self, timeout: float) -> None:
        """Have the relay answer. Raises TimeoutError, EmissaryError."""

    def request(self, data: bytes, read: Callable[[bytes, bool], T | None], timeout: float) -> T:
        """Send ``data`` to the target, and read until ``read`` makes something of it.

        Args:
            data: May be empty.
            read: Given all bytes so far, and whether the target has ended its stream, in which case it must
                not give ``None``.
            timeout: For the whole of it.

        Raises:
            TimeoutError, EmissaryError: It was cut off, or took too long.
        """

    def close(self) -> None:
        """End the session in good order, within two seconds, and give everything back. Idempotent."""
