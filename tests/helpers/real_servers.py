"""Real servers of databases, on a socket file, with a TCP address before them."""

from __future__ import annotations

import os
import pathlib
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.helpers.local_cloud import eventually
from tests.helpers.patience import HANG
from tests.helpers.servers import Server
from tests.helpers.tls_front import pass_on


@contextmanager
def behind(*words: str, directory: pathlib.Path) -> Iterator[tuple[str, int]]:
    """A real server that listens on the socket file ``s`` in its directory; gives a TCP address before it."""
    path = str(directory / "s")

    def serve(connection: socket.socket) -> None:
        with socket.socket(socket.AF_UNIX) as back:
            back.connect(path)
            pass_on(connection, back)

    def listens() -> bool | None:
        assert process.poll() is None, (directory / "log").read_text()
        with socket.socket(socket.AF_UNIX) as trial:
            return trial.connect_ex(path) == 0 or None

    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log, cwd=directory)
        try:
            eventually(listens, words[0])
            with Server(serve) as address:
                yield address
        finally:
            process.terminate()
            process.wait(HANG)


def redis_words(*options: str) -> list[str]:
    """The command line of a Redis that keeps nothing."""
    return ["redis-server", "--port", "0", "--unixsocket", "s", "--save", "", *options]


def mariadb_words(directory: pathlib.Path) -> list[str]:
    """The command line of a MariaDB with a new data directory, which lets everybody in."""
    data = directory / "data"
    data.mkdir()
    words = ["mariadbd", "--no-defaults", f"--datadir={data}", f"--socket={directory / 's'}"]
    return [
        *words,
        "--skip-networking",
        "--skip-grant-tables",
        *(["--user=root"] if os.getuid() == 0 else []),
    ]
