"""Stand-ins for what the functions call, all of them recording: ``@connections``, Lambda, Secrets Manager."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final
from urllib.parse import unquote

from tools.replay import example

_CONNECTION: Final = re.compile(rf"/{example.STAGE}/@connections/([^/]+)")
_INVOKE: Final = re.compile(r"/2015-03-31/functions/([^/]+)/invocations")
_SECRETS: Final = "secretsmanager.GetSecretValue"


@dataclass
class Calls:
    """What was asked of the stand-ins.

    Attributes:
        posts: (connection id, text) of each post.
        deleted: Connection ids.
        launched: Event of each asynchronous invocation.
        others: Requests that no function should ever make.
    """

    posts: list[tuple[str, str]] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    launched: list[Any] = field(default_factory=list)
    others: list[str] = field(default_factory=list)


class Services:
    """A context manager: one HTTP server, on a port that is free.

    Args:
        secret: What Secrets Manager holds.
        on_post: Called with the text of each post, after it has been recorded.
        listen: Address of this machine to listen on.

    Attributes:
        calls: All so far.
        gone: Connections that are answered 410.

    Safe to use from several threads.
    """

    def __init__(
        self, secret: str, on_post: Callable[[str], None] = lambda text: None, listen: str = "127.0.0.1"
    ) -> None:
        self.calls = Calls()
        self.gone: frozenset[str] = frozenset()
        self._secret = secret
        self._on_post = on_post
        self._lock = threading.Lock()
        self._listen = listen
        services = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                target = self.headers.get("X-Amz-Target", "")
                status, answer, error = services._answer("POST", unquote(self.path), target, body)
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                if error:
                    self.send_header("x-amzn-ErrorType", error)
                self.end_headers()
                self.wfile.write(answer)

            def do_DELETE(self) -> None:
                status, _answer, _error = services._answer("DELETE", unquote(self.path), "", b"")
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *arguments: object) -> None:
                """Nothing is logged."""

        self._server = ThreadingHTTPServer((listen, 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="replay-services")

    @property
    def url(self) -> str:
        """Base URL, without a path."""
        return f"http://{self._listen}:{self._server.server_port}"

    def __enter__(self) -> Services:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _answer(self, method: str, path: str, target: str, body: bytes) -> tuple[int, bytes, str]:
        """(status, body, error type) for a request, which is recorded."""
        connection, function = _CONNECTION.fullmatch(path), _INVOKE.fullmatch(path)
        with self._lock:
            if connection is not None and method == "DELETE":
                self.calls.deleted.append(connection.group(1))
                return 204, b"", ""
            if function is not None:
                self.calls.launched.append(json.loads(body))
                return 202, b"", ""
            if target == _SECRETS:
                named = json.loads(body)["SecretId"]
                answer = {"ARN": named, "Name": named, "VersionId": "1" * 32, "SecretString": self._secret}
                return 200, json.dumps(answer).encode(), ""
            if connection is None:
                self.calls.others.append(f"{method} {path} {target}".strip())
                return 404, b"{}", "ResourceNotFoundException"
            text = body.decode("utf-8", "replace")
            self.calls.posts.append((connection.group(1), text))
            if connection.group(1) in self.gone:
                return 410, b"", "GoneException"
        self._on_post(text)
        return 200, b"", ""
