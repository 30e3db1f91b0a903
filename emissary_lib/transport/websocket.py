"""The WebSocket to API Gateway: the only module that imports websocket-client, and that maps its errors.

It makes the handshake. What follows is done here and in :mod:`emissary_lib.transport.websocket_frames`,
because its ``send`` makes one frame per message, while API Gateway takes 32 KB a frame; its ``recv`` answers
pings behind the back of a thread that is sending; and both are slow. Nobody looks here at whether text is
UTF-8: the frame decoder refuses what is not ASCII.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from emissary_lib.exceptions import (
    NOTHING_LEFT,
    AnswerLostError,
    ConfigError,
    GatewayRefusedError,
    GatewayUnreachableError,
    LinkClosedError,
    LocalResourceError,
    local_resource_error,
)
from emissary_lib.protocol.constants import MAX_FRAGMENT, SUBPROTOCOL
from emissary_lib.protocol.wire.masking import KEY
from emissary_lib.protocol.wire.text import clean, decode_clean
from emissary_lib.protocol.wire.websocket import FrameFormatError, Opcode, frame_parts
from emissary_lib.system import patience_options
from emissary_lib.transport import happy_eyeballs, trust
from emissary_lib.transport.bytestream import CHUNK, ByteStream
from emissary_lib.transport.deadline import Deadline
from emissary_lib.transport.proxy import (
    ProxyError,
    ask_http_proxy,
    connect_through_socks,
    find_proxy,
)
from emissary_lib.transport.watch import Step, Watch
from emissary_lib.transport.websocket_frames import FrameReader, WebSocketFrame

try:
    import websocket
    from websocket._url import parse_url
except ImportError as _error:
    from emissary_lib.transport.installation import package_error

    raise package_error(_error) from _error

#: Longest message to take, in bytes: API Gateway's own limit, 128 KB. Bounds what a false server can fill.
MAX_INCOMING: Final = 131_072

#: Most fragments of one message, empty ones included. API Gateway's are up to 32 KB, but a proxy on the way
#: may cut them anew; without a limit, a message of empty ones would never end.
MAX_INCOMING_FRAGMENTS: Final = 1_024

_ENDED: Final = "the connection ended without a close frame"

#: Longest head of the answer to an upgrade, in bytes: status and headers. API Gateway's are under 1 KB.
MAX_HEAD: Final = 65_536

#: Seconds that a send may wait for room in the kernel before the link counts as dead.
SEND_TIMEOUT: Final = 30.0


class OriginalServerError(GatewayUnreachableError):
    """The server accepts WebSockets and no subprotocol, as the original Emissary's does.

    Attributes:
        stream: Its connection, behind the answer to the upgrade; whoever catches this owns it.
        date: The answer's ``Date`` header, or ``None``.
    """

    def __init__(self, url: str, stream: ByteStream, date: str | None) -> None:
        super().__init__(f"the server at {url} does not speak {SUBPROTOCOL}; check the URL")
        self.stream = stream
        self.date = date


def connect(
    url: str,
    *,
    headers: Mapping[str, str],
    deadline: Deadline,
    ssl_context: ssl.SSLContext | None = None,
    watch: Watch | None = None,
    original: bool = False,
) -> WebSocketTransport:
    """Open a WebSocket with subprotocol ``emissary.v2``.

    Args:
        url: ``wss://host/stage`` (or ``ws://`` for the local cloud), the scheme in small letters.
        headers: Sent with the upgrade request.
        deadline: Bounds DNS, TCP, TLS and the upgrade together.
        ssl_context: For ``wss``; ``None`` for one that checks certificate and name.
        watch: Told how far it has come; ``None`` for nobody.
        original: Whether to hand over the connection to a server that accepts no subprotocol.

    A proxy that the environment names (:mod:`emissary_lib.transport.proxy`) is gone through.

    Raises:
        GatewayUnreachableError: No answer; its subclass AnswerLostError: cut off while one was waited for.
            OriginalServerError: it was accepted without a subprotocol, and that is wanted.
        GatewayRefusedError: An answer other than 101.
        ConfigError: The environment names a proxy that cannot be used.
        LocalResourceError: No descriptor or thread is left here.
        TimeoutError: The deadline passed.
    """
    upgrade = _Upgrade(url, headers, deadline, ssl_context, watch or Watch())
    try:
        ws = upgrade.result(deadline)
    except (ConfigError, LocalResourceError):  # also a ValueError, an OSError: no fault of the gateway's
        raise
    except websocket.WebSocketBadStatusException as exc:
        raise _refused_error(url, int(exc.status_code or 0), exc.resp_headers) from exc
    except (websocket.WebSocketTimeoutException, TimeoutError) as exc:
        raise TimeoutError(f"the gateway at {url} did not answer in time") from exc
    except (websocket.WebSocketException, OSError, ValueError) as exc:
        if upgrade.status not in (None, 101):
            raise _refused_error(url, upgrade.status, None) from exc
        if isinstance(exc, OSError) and exc.errno in NOTHING_LEFT:
            raise local_resource_error(exc) from exc
        if isinstance(exc, socket.gaierror) and (lack := _lack_of_descriptors()):
            raise local_resource_error(lack) from exc
        said = clean(_words(exc))
        if isinstance(exc, ProxyError):
            raise GatewayUnreachableError(f"cannot reach the gateway at {url}: {said}") from exc
        if isinstance(exc, ssl.SSLCertVerificationError):
            fact, advice = trust.explain_certificate(exc, parse_url(url)[0])
            raise GatewayUnreachableError(f"cannot reach the gateway at {url}: {fact}; {advice}") from exc
        if upgrade.asked and isinstance(exc, _CUT_OFF):
            raise AnswerLostError(
                f"the gateway at {url} cut the connection before it had answered: {said}; if that goes on, "
                "check the URL, and what stands between here and there"
            ) from exc
        if isinstance(exc, ssl.SSLError) and exc.reason in _NO_TLS:
            said = f"what answers there does not speak TLS ({exc.reason})"
        through, check = "", "the URL, DNS"
        if upgrade.proxy:
            through = f" through the proxy {upgrade.proxy} ({upgrade.proxy.variable})"
            check = f"{upgrade.proxy.variable}, the URL"
        raise GatewayUnreachableError(
            f"cannot reach the gateway at {url}{through}: {said}; check {check} and the way out to "
            "the internet"
        ) from exc
    answer = ws.getheaders() or {}
    accepted = answer.get("sec-websocket-protocol")
    if ws.connection is None or accepted != SUBPROTOCOL:
        if original and accepted is None and ws.connection is not None:
            raise OriginalServerError(url, ByteStream(ws.connection), answer.get("date"))
        ws.shutdown()  # type: ignore[no-untyped-call]
        raise GatewayUnreachableError(f"the server at {url} does not speak {SUBPROTOCOL}; check the URL")
    return WebSocketTransport(ByteStream(ws.connection), url)


def _words(error: Exception) -> str:
    """What is wrong, without a number where it is the system that says it."""
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError):
        return error.strerror or str(error)
    return str(error)


def _lack_of_descriptors() -> OSError | None:
    """Why no descriptor is to be had now, if none is: a lookup that lacks one blames the name."""
    try:
        socket.socket().close()
    except OSError as exc:
        return exc
    return None


def _refused_error(url: str, status: int, headers: Mapping[str, str] | None) -> GatewayRefusedError:
    return GatewayRefusedError(
        f"the gateway at {url} refused the connection with HTTP status {status}",
        http_status=status,
        date=(headers or {}).get("date"),
    )


#: What OpenSSL says of an answer that is not TLS at all.
_NO_TLS: Final = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "RECORD_LAYER_FAILURE")

#: How the library tells that the other end has gone.
_CUT_OFF: Final = (websocket.WebSocketConnectionClosedException, ConnectionError, ssl.SSLEOFError)


class _Client(websocket.WebSocket):
    """Remembers its connection, which the library forgets when the upgrade fails.

    Attributes:
        connection: The socket, TLS included; ``None`` if there never was one.
        deadline: Until when the answer is read.
    """

    connection: socket.socket | None = None
    deadline = Deadline(None)

    def __setattr__(self, name: str, value: object) -> None:
        if name == "sock" and isinstance(value, socket.socket):
            self.connection = value
            value = _AnswerHead(value, self.deadline)
        super().__setattr__(name, value)


#: Headers that the library must not see. It would wait for a refusal's whole body before it tells the status,
#: and send cookies with the next upgrade, to other hosts too; one that it cannot parse breaks it.
_NOT_FOR_THE_LIBRARY: Final = frozenset({b"content-length", b"set-cookie"})


class _AnswerHead:
    """A socket from which the library reads the head of an answer, within limits, and nothing behind it."""

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        self._sock = sock
        self._deadline = deadline
        self._rest = b""  # of the line that the library is reading
        self._lines = self._size = 0

    def recv(self, size: int) -> bytes:
        while not self._rest:
            line = self.read_line()
            name = line.partition(b":")[0].strip().lower()
            if self._lines == 1 or name not in _NOT_FOR_THE_LIBRARY:
                self._rest = line
        piece, self._rest = self._rest[:size], self._rest[size:]
        return piece

    def read_line(self) -> bytes:
        """The next line as it comes.

        Raises:
            TimeoutError: The deadline passed.
            websocket.WebSocketException: The head is too long, or the connection ended in it.
        """
        line = bytearray()
        while not line.endswith(b"\n"):
            if self._deadline.passed():
                raise TimeoutError("timed out")
            byte = self._sock.recv(1)  # not a byte more: frames may follow at once
            if not byte:
                raise websocket.WebSocketConnectionClosedException(
                    "the connection ended before the answer did"
                )
            line += byte
            self._size += 1
            if self._size > MAX_HEAD:
                raise websocket.WebSocketException(f"its answer has a head of more than {MAX_HEAD} bytes")
        self._lines += 1
        return bytes(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


class _Upgrade:
    """DNS, TCP, TLS and the upgrade, in a thread of its own, because a name server cannot be interrupted.

    websocket-client's timeout is for each operation on the socket, so a server that sends byte by byte could
    stretch it without end; and it does not bound the look-up of the name at all.
    """

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        deadline: Deadline,
        ssl_context: ssl.SSLContext | None,
        watch: Watch,
    ) -> None:
        self._url = url
        self._deadline = deadline
        self._watch = watch
        self.proxy = find_proxy(url)
        self._tls = (ssl_context or trust.client_context()) if parse_url(url)[3] else None
        # Offered here and checked by the caller: the library would not say what it missed in the answer.
        self._headers = {**headers, "Sec-WebSocket-Protocol": SUBPROTOCOL}
        self._ws = _Client(
            skip_utf8_validation=True,
            enable_multithread=False,  # one thread at a time sees it
            sockopt=_socket_options(),
            sslopt={"context": self._tls} if self._tls else None,
        )
        self._ws.deadline = deadline
        self._ws.settimeout(deadline.remaining())
        self._sock: socket.socket | None = None
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._finished = False
        self._abandoned = False
        self._failure: BaseException | None = None

    @property
    def asked(self) -> bool:
        """Whether the gateway was reached, TLS included, so that it may know what was asked."""
        return self._ws.connection is not None

    @property
    def status(self) -> int | None:
        """The answer's HTTP status, as far as there was one."""
        return self._ws.getstatus()

    def result(self, deadline: Deadline) -> _Client:
        """The open WebSocket; raises what the library raises.

        Raises:
            LocalResourceError: No thread is left.
            TimeoutError: The deadline passed; what still comes of the attempt is closed.
        """
        if deadline.passed():
            raise TimeoutError("no time is left")
        try:
            threading.Thread(target=self._run, name="emissary-upgrade", daemon=True).start()
        except RuntimeError as exc:  # no thread is left
            raise local_resource_error(exc) from exc
        try:
            self._watch.wait(self._done, deadline)
        finally:
            finished = self._finish_or_abandon()
        if not finished:
            raise TimeoutError("timed out")
        if self._failure is not None:
            raise self._failure
        return self._ws

    def _run(self) -> None:
        try:
            self._ws.connect(  # type: ignore[no-untyped-call]
                # The library would try one address after the other, and has its own idea of proxies.
                socket=self._reach(),
                # A redirect would carry the signed headers to wherever it points.
                url=self._url,
                header=self._headers,
                suppress_origin=True,
                redirect_limit=0,
            )
        except Exception as exc:
            self._failure = exc
        with self._lock:
            if self._abandoned or self._failure is not None:
                self._ws.shutdown()  # type: ignore[no-untyped-call]
            self._finished = True
            self._done.set()

    def _reach(self) -> socket.socket:
        """TCP and TLS to the gateway itself, through a proxy if there is one."""
        host, port, _path, _secure = parse_url(self._url)
        sock = self._open((host, port))
        try:
            if self._tls is not None:
                self._enter("TLS")
                sock = self._tls.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
            self._hold(sock)
            if isinstance(sock, ssl.SSLSocket):
                sock.do_handshake()
        except BaseException:
            sock.close()
            raise
        self._enter("upgrade")
        return sock

    def _open(self, address: tuple[str, int]) -> socket.socket:
        """TCP to ``address``, as far as it depends on us."""
        proxy = self.proxy
        if proxy is None:
            return happy_eyeballs.connect(
                address,
                self._deadline.remaining(),
                options=_socket_options(),
                resolve=self._resolve,
                given_up=self._deadline.passed,
            )
        self._enter("proxy")
        if proxy.scheme != "http":
            return connect_through_socks(proxy, address, self._deadline.remaining())
        sock = happy_eyeballs.connect(
            proxy.address,
            self._deadline.remaining(),
            options=_socket_options(),
            given_up=self._deadline.passed,
        )
        try:
            self._hold(sock)
            ask_http_proxy(sock, proxy, address, _AnswerHead(sock, self._deadline).read_line)
        except BaseException:
            sock.close()
            raise
        return sock

    def _hold(self, sock: socket.socket) -> None:
        """Have the wait at ``sock`` ended once the attempt is nobody's any more, or its time is up."""
        with self._lock:
            self._sock = sock
            if self._abandoned:
                raise TimeoutError("timed out")
        sock.settimeout(self._deadline.remaining())

    def _resolve(self, *address: Any, **hints: Any) -> Any:
        self._enter("name")
        found = socket.getaddrinfo(*address, **hints)
        self._enter("TCP")
        return found

    def _enter(self, step: Step) -> None:
        with self._lock:
            if not self._abandoned:  # else the dial is elsewhere by now
                self._watch.enter(step)

    def _finish_or_abandon(self) -> bool:
        """Whether the attempt has ended; one that has not is nobody's any more, whatever comes of it."""
        with self._lock:
            self._abandoned = not self._finished
            sock = self._ws.connection or self._sock
            if self._abandoned and sock is not None:
                with contextlib.suppress(OSError):
                    # Ends the wait for the answer; the attempt's own thread closes.
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)
            return self._finished


def _socket_options() -> list[tuple[int, int, int]]:
    # NAT gateways, load balancers and VPC endpoints forget a flow that is silent for 350 s; and a peer that
    # vanished must not be waited for as long as TCP does by default: a quarter of an hour.
    return [
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        *patience_options(silence=120.0, unanswered=SEND_TIMEOUT),
    ]


class WebSocketTransport:
    """An open WebSocket; see :class:`emissary_lib.transport.base.MessageTransport` for the contract.

    Args:
        stream: Behind the answer to the upgrade.
        url: The gateway's, for the text of errors.
        clock: A monotonic clock.
        random: Gives so many bytes that nobody can guess, for the keys of masks.
    """

    def __init__(
        self,
        stream: ByteStream,
        url: str,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._stream = stream
        self._url = url
        self._clock = clock
        self._random = random
        self._deadline = Deadline(None, clock)
        self._reads = 0  # of the call of ``recv`` that is under way
        self._taken = 0  # frames, in the same
        self._over = False  # shut down on this side
        self._frames = FrameReader(self._read, MAX_INCOMING)
        self._parts: list[bytes] = []  # of a message whose last fragment has not come yet
        self._size = 0  # of all of them, in bytes
        self._send_lock = threading.Lock()

    def send(self, message: bytes, timeout: float | None = None) -> None:
        """Send one message, in fragments of ``MAX_FRAGMENT`` bytes; nobody else's come in between."""
        starts = range(0, len(message) or 1, MAX_FRAGMENT)
        keys = self._random(KEY * len(starts))
        parts: list[bytes] = []
        for index, start in enumerate(starts):
            piece, key = message[start : start + MAX_FRAGMENT], keys[KEY * index : KEY * (index + 1)]
            opcode = Opcode.CONTINUATION if start else Opcode.TEXT
            parts += frame_parts(piece, opcode, key, last=index == len(starts) - 1)
        self._write(b"".join(parts), Deadline(timeout, self._clock))

    def recv(self, timeout: float | None) -> bytes:
        """The next whole message; pings are answered on the way."""
        deadline = self._deadline = Deadline(timeout, self._clock)
        self._reads = self._taken = 0
        while True:
            try:
                opcode, last, payload = self._next_frame()
            except FrameFormatError as exc:
                raise self._broken(f"it sent {exc}") from None
            except TimeoutError:
                raise
            except (OSError, ValueError) as exc:
                raise LinkClosedError(f"the WebSocket to {self._url} broke: {clean(str(exc))}") from exc
            match opcode:
                case Opcode.TEXT | Opcode.CONTINUATION:
                    self._take(payload, starts=opcode is Opcode.TEXT)
                    if last:
                        parts, self._parts, self._size = self._parts, [], 0
                        return parts[0] if len(parts) == 1 else b"".join(parts)
                case Opcode.PING:
                    self._write(self._control(payload, Opcode.PONG), deadline)
                case Opcode.CLOSE:
                    if len(payload) == 1:
                        raise self._broken("it sent a close frame with half a code")
                    raise self._close_error(payload)
                case Opcode.BINARY:
                    raise self._broken("it sent a binary frame")

    def _take(self, data: bytes, *, starts: bool) -> None:
        if starts == bool(self._parts):
            raise self._broken("it mixed up the fragments of its messages")
        self._parts.append(data)
        self._size += len(data)
        if self._size > MAX_INCOMING:
            raise self._broken(f"it sent a message of more than {MAX_INCOMING} bytes")
        if len(self._parts) > MAX_INCOMING_FRAGMENTS:
            raise self._broken(f"it sent a message in more than {MAX_INCOMING_FRAGMENTS} fragments")

    def _broken(self, cause: str) -> LinkClosedError:
        self.abort()
        return LinkClosedError(f"the server at {self._url} is no gateway of ours: {cause}")

    def close(self) -> None:
        """Send a close frame if that does not block, then shut the connection down."""
        # Somebody else may be blocked in a send; then the goodbye is dropped rather than waited for.
        if self._send_lock.acquire(blocking=False):
            try:
                with contextlib.suppress(OSError):
                    goodbye = (1000).to_bytes(2, "big")
                    self._stream.write(self._control(goodbye, Opcode.CLOSE), Deadline(0))
            finally:
                self._send_lock.release()
        self.abort()

    def abort(self) -> None:
        """Shut the connection down; the descriptor stays until :meth:`release`."""
        self._over = True
        self._stream.shutdown()

    def release(self) -> None:
        """Close the file descriptor; whoever still uses this transport gets a ``LinkClosedError``."""
        self._stream.close()

    def _next_frame(self) -> WebSocketFrame:
        # The stream looks at the time when it has to wait, and a flood never lets it. The first frame is
        # free, and so is the first read: whoever has no time left still gets on, however little.
        if self._taken and self._deadline.passed():
            raise TimeoutError("no whole message came in time")
        self._taken += 1
        if self._over:
            raise ConnectionResetError(_ENDED)  # what came before, and a flood is a lot, nobody wants
        return self._frames.next()

    def _read(self) -> bytes:
        if self._reads and self._deadline.passed():
            raise TimeoutError("no whole message came in time")
        self._reads += 1
        data = self._stream.read(CHUNK, self._deadline)
        if not data:
            raise ConnectionResetError(_ENDED)
        return data

    def _write(self, data: bytes, deadline: Deadline) -> None:
        with self._send_lock:
            try:
                self._stream.write(data, deadline.within(SEND_TIMEOUT))
            except OSError as exc:
                self.abort()  # part of a frame may be gone: nothing can follow it
                raise LinkClosedError(f"the WebSocket to {self._url} broke: {exc}") from exc

    def _close_error(self, data: bytes) -> LinkClosedError:
        with contextlib.suppress(LinkClosedError):
            self._write(self._control(data[:2], Opcode.CLOSE), self._deadline)
        code = int.from_bytes(data[:2], "big") if len(data) >= 2 else 1005
        reason = decode_clean(data[2:]) or "no reason given"
        return LinkClosedError(
            f"the gateway at {self._url} closed the WebSocket: {code} ({reason})", close_code=code
        )

    def _control(self, payload: bytes, opcode: Opcode) -> bytes:
        return b"".join(frame_parts(payload, opcode, self._random(KEY)))
