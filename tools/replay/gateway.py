"""Stands in for API Gateway's WebSocket end when a relay dials back; and for its target."""

from __future__ import annotations

import http
import socket
import threading
from types import TracebackType
from typing import Final

from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve
from websockets.typing import Subprotocol

from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.constants import SUBPROTOCOL
from emissary_lib.protocol.errors import ProtocolError
from emissary_lib.protocol.wire.frames import Flag, Frame, FrameType, decode, encode
from emissary_lib.protocol.wire.payloads import Ended, Opened

#: How long a relay may take from its claim until it has posted what it will, in seconds.
POSTED_TIMEOUT: Final = 20.0


class FakeGateway:
    """A context manager: a WebSocket server that lets relays in, or refuses them all.

    A relay that is let in is told that the dialer is gone for good, so that its invocation ends, once it has
    posted what it will: OPENED, and the end of its stream where the target was not reached.

    Args:
        status: 101, or the status to refuse with.
        listen: Address of this machine to listen on.

    Attributes:
        dial_backs: The ``X-Emissary-*`` headers of each attempt.
    """

    def __init__(self, status: int, listen: str = "127.0.0.1") -> None:
        self.dial_backs: list[dict[str, str]] = []
        self._listen = listen
        self._status = status
        self._posted = threading.Event()
        self._lock = threading.Lock()
        self._opened: Frame | None = None
        self._fin = False
        self._server = serve(
            self._serve, listen, 0, process_request=self._admit, subprotocols=[Subprotocol(SUBPROTOCOL)]
        )
        self._thread = threading.Thread(target=self._server.serve_forever, name="replay-gateway")

    @property
    def url(self) -> str:
        """The WebSocket URL, with a stage."""
        return f"ws://{self._listen}:{self._server.socket.getsockname()[1]}/emissary"

    def __enter__(self) -> FakeGateway:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._posted.set()
        self._server.shutdown()
        self._thread.join()

    def on_post(self, text: str) -> None:
        """Take note of what a relay posts to the dialer."""
        try:
            frame = decode(text.encode("utf-8", "surrogatepass"))
        except ProtocolError:
            return
        with self._lock:
            if frame.type == FrameType.OPENED:
                self._opened = frame
            self._fin = self._fin or bool(frame.flags & Flag.FIN)
            if self._opened is not None:
                opened, _bytes = Opened.decode(self._opened.payload)
                if self._fin or opened.code is Code.OK:
                    self._posted.set()

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        own = {name: value for name, value in request.headers.raw_items() if name.startswith("X-Emissary-")}
        self.dial_backs.append(own)
        if self._status == http.HTTPStatus.SWITCHING_PROTOCOLS:
            return None
        return Response(self._status, http.HTTPStatus(self._status).phrase, Headers({"Content-Length": "0"}))

    def _serve(self, connection: ServerConnection) -> None:
        self._posted.wait(POSTED_TIMEOUT)
        over = Ended(Code.DIALER_GONE, 0, 0)
        generation = 0 if self._opened is None else self._opened.generation
        try:
            connection.send(
                encode(Frame(FrameType.ENDED, generation=generation, payload=over.encode())), text=True
            )
            for _message in connection:
                pass  # acknowledgements on the way
        except ConnectionClosed:
            pass


class SilentTarget:
    """A context manager: a TCP server that accepts, and says nothing.

    Args:
        listen: Address of this machine to listen on.
    """

    def __init__(self, listen: str = "127.0.0.1") -> None:
        # The kernel accepts: nobody has to.
        self._socket = socket.create_server((listen, 0))

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._socket.getsockname()[1])

    def __enter__(self) -> SilentTarget:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()
