"""A small HTTP server in AWS's place: answers what it is told to, and keeps what it was asked."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.helpers.patience import HANG


@dataclass(frozen=True)
class Asked:
    """One request."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    client_port: int


class CallbackServer:
    """Listens on loopback; ``with`` it.

    Attributes:
        asked: Every request, in order.
        status: What is answered.
        failing: If it is set, only so many of the next requests have that status, and then it is 200.
        answer: The body.
        checksum: What DynamoDB would say of it.
        hang_up: So many of the next requests are read and then answered by closing the connection.
        silent: While set, requests are read and not answered until :meth:`close`.
        meanwhile: Called once, when the next request is there and not yet answered.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.asked: list[Asked] = []
        self.status = 200
        self.failing: int | None = None
        self.answer = b""
        self.checksum: int | None = None
        self.hang_up = 0
        self.silent = False
        self.error_type = ""
        self.meanwhile: Callable[[], object] | None = None
        self._over = threading.Event()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def handle_one_request(self) -> None:
                self.raw_requestline = self.rfile.readline(65_537)
                if not self.raw_requestline or not self.parse_request():
                    self.close_connection = True
                    return
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                owner.asked.append(Asked(self.command, self.path, headers, body, self.client_address[1]))
                meanwhile, owner.meanwhile = owner.meanwhile, None
                if meanwhile is not None:
                    meanwhile()
                if owner.silent:
                    owner._over.wait(HANG)
                if owner.silent or owner.hang_up:
                    owner.hang_up = max(0, owner.hang_up - 1)
                    self.close_connection = True
                    return
                if owner.failing == 0:
                    owner.status, owner.failing = 200, None
                elif owner.failing is not None:
                    owner.failing -= 1
                self.send_response(owner.status)
                self.send_header("Content-Length", str(len(owner.answer)))
                if owner.checksum is not None:
                    self.send_header("x-amz-crc32", str(owner.checksum))
                if owner.error_type:
                    self.send_header("x-amzn-ErrorType", owner.error_type)
                self.end_headers()
                self.wfile.write(owner.answer)

            def log_message(self, *_: Any) -> None:
                """Requests are not for the test's output."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = False
        scheme = "http"
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
            scheme = "https"
        self.url = f"{scheme}://127.0.0.1:{self._server.server_port}/emissary"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), name="callbacks")
        self._thread.start()

    def __enter__(self) -> CallbackServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._over.set()
        self._server.shutdown()
        self._thread.join(HANG)
        self._server.server_close()
