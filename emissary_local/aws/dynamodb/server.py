"""The process that stands in for DynamoDB: moto's WSGI application behind one lock. Run with ``-m``.

Requests are served one at a time: moto, threaded, loses concurrent updates, and the sessions' claims are
conditional writes. Connections are kept (HTTP/1.1). Listens on 127.0.0.1, or on the address that is its only
argument. Prints its port as one JSON line, then serves until its standard input ends.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterable
from typing import Any, Final

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

from emissary_local.aws.dynamodb.moto_patches import patch_moto, take_written
from emissary_local.aws.dynamodb.sizes import WRITTEN

_PR_SET_PDEATHSIG: Final = 1


class _Handler(MotoRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Requests are not logged: they hold session items."""


class _OneAtATime:
    def __init__(self, application: Any) -> None:
        self._application = application
        self._lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            sizes = ",".join(map(str, take_written()))
            return start_response(status, [*headers, (WRITTEN, sizes)], *rest)

        with self._lock:
            return list(self._application(environ, start))


def main() -> None:
    """Serve until standard input ends."""
    _die_with_parent()
    patch_moto()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    application = _OneAtATime(DomainDispatcherApplication(create_backend_app))
    host = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1"
    server = make_server(host, 0, application, threaded=True, request_handler=_Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdout.write(json.dumps({"port": server.server_port}) + "\n")
    sys.stdout.flush()
    sys.stdin.read()


def _die_with_parent() -> None:
    """Have the kernel kill this process when the thread that started it ends (prctl(2)).

    The one thread of the cloud process does. That process itself must not use it: its user may start it from
    a thread that ends earlier. It watches a pipe instead.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() == 1:
        os._exit(1)  # the parent ended before the call


if __name__ == "__main__":
    main()
