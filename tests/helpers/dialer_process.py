"""A dialer of any version of the library, in a process of its own.

Run as a script, this module is that process: it must do with what all versions have.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
import random
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the process has that of its own version
    from emissary_lib import Key

#: Longest dial, and longest wait for the next byte, in seconds: so long that only a hang reaches it.
HANG = 60.0


class FailedError(Exception):
    """What was asked for failed there; the text is the error's name and its text."""


class DialerProcess:
    """Asks a running one, one thing at a time.

    Args:
        process: It.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def dial(self, name: str) -> str:
        """Dial the target, and call the connection so; its session's id.

        Raises:
            FailedError: It could not be reached.
        """
        return str(self._ask(do="dial", name=name)["session"])

    def echo(
        self, name: str, size: int, seed: int = 0, meanwhile: Callable[[], object] = lambda: None
    ) -> str:
        """Send so many bytes over a connection and take them back, both at once.

        Args:
            name: Of the connection.
            size: How many bytes.
            seed: Of what they are.
            meanwhile: Called when the first of them are back.

        Returns:
            Why the tunnel was cut off, or nothing if all came back as it was sent.

        Raises:
            AssertionError: What came back was not what was sent, or nobody said that anything was lost.
        """
        answer = self._ask(do="echo", name=name, size=size, seed=seed)
        if "begun" in answer:
            meanwhile()
            answer = self._answer()
        if "error" not in answer:
            sent = hashlib.sha256(random.Random(seed).randbytes(size)).hexdigest()
            assert (answer["size"], answer["digest"]) == (size, sent), "lost, and nobody was told"
        return str(answer.get("error", ""))

    def end(self, name: str) -> None:
        """Close a connection, and wait until the target has, too."""
        assert self._ask(do="end", name=name)["left"] == 0

    def _ask(self, **question: Any) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the dialer's process has died"
        answer = json.loads(line)
        if "failed" in answer:
            raise FailedError(answer["failed"])
        return answer


@contextlib.contextmanager
def dialer_process(
    tree: pathlib.Path, url: str, key: Key, target: tuple[str, int], proxy: int, **options: Any
) -> Iterator[DialerProcess]:
    """Start one, and end it.

    Args:
        tree: Folder with the ``emissary_lib`` that is to be used.
        url: The gateway's.
        key: The shared key.
        target: What it dials.
        proxy: Port on 127.0.0.1 of the HTTP proxy that leads to the gateway.
        options: Of its ``Dialer``.
    """
    settings = {"url": url, "key": [key.key_id, key.secret.hex()], "target": list(target), "options": options}
    command = [sys.executable, "-P", __file__, json.dumps(settings)]
    environ = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    environ |= {"https_proxy": f"http://127.0.0.1:{proxy}", "PYTHONPATH": str(tree)}
    with subprocess.Popen(
        command, env=environ, cwd=tree, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            used = json.loads(process.stdout.readline())
            assert pathlib.Path(used["library"]).is_relative_to(tree)
            yield DialerProcess(process)
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait(2 * HANG) == 0
        finally:
            process.kill()


def _echo(
    sock: socket.socket, size: int, seed: int, tell: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    data = random.Random(seed).randbytes(size)
    sender = threading.Thread(target=_send, args=(sock, data), daemon=True)
    sender.start()
    heard, got = hashlib.sha256(), 0
    while got < size and (piece := sock.recv(min(1 << 16, size - got))):
        heard.update(piece)
        if not got:
            tell({"begun": True})
        got += len(piece)
    sender.join(HANG)
    return {"size": got, "digest": heard.hexdigest()}


def _send(sock: socket.socket, data: bytes) -> None:
    with contextlib.suppress(OSError):  # who reads is told, too
        sock.sendall(data)


def _serve(settings: dict[str, Any]) -> None:
    import emissary_lib
    from emissary_lib import Dialer, Key, TunnelResetError

    key_id, secret = settings["key"]
    socks: dict[str, Any] = {}

    def tell(what: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(what) + "\n")
        sys.stdout.flush()

    def answer(question: dict[str, Any]) -> dict[str, Any]:
        if question["do"] == "dial":
            sock = dialer.dial(tuple(settings["target"]), HANG)
            sock.settimeout(HANG)
            socks[question["name"]] = sock
            assert sock.session is not None
            return {"session": sock.session.id}
        sock = socks[question["name"]]
        if question["do"] == "echo":
            try:
                return _echo(sock, question["size"], question["seed"], tell)
            except TunnelResetError as exc:
                return {"error": f"{type(exc).__name__}: {exc}"}
        sock.shutdown(socket.SHUT_WR)
        left = len(sock.recv(1 << 16))
        sock.close()
        return {"left": left}

    with Dialer(settings["url"], Key(key_id, bytes.fromhex(secret)), **settings["options"]) as dialer:
        tell({"library": emissary_lib.__file__})
        for line in sys.stdin:
            try:
                tell(answer(json.loads(line)))
            except Exception as exc:
                tell({"failed": f"{type(exc).__name__}: {exc}"})


if __name__ == "__main__":
    _serve(json.loads(sys.argv[1]))
