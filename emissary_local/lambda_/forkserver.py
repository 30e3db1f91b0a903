"""The cloud process's end of the fork server: starts it, asks it for forks, hears of their ends."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Final, Protocol

from emissary_local.errors import LocalCloudError
from emissary_local.lambda_.forkserver_child import MAX_COMMAND

_SCRIPT: Final = Path(__file__).with_name("forkserver_child.py")


class Fork(Protocol):
    """What is told of a forked process; called on the event loop."""

    id: str

    def on_fork(self, pidfd: int) -> None:
        """It runs; ``pidfd`` now belongs to the receiver."""

    def on_exit(self, reason: str) -> None:
        """It has ended, or could not be started."""


class ForkServer:
    """One fork server.

    Args:
        log: File that gets what the fork server itself writes (nothing, unless it breaks).
        site: Folder with the only packages there are beside a function's own; None: this environment's.

    Thread safety: none; it belongs to the event loop it was started on.
    """

    def __init__(self, log: IO[bytes], site: Path | None = None) -> None:
        self._log = log
        self._site = site
        self._forks: dict[str, Fork] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._ready: asyncio.Future[None] | None = None

    async def start(self) -> None:
        """Start the fork server and wait until it has imported what it preloads.

        Raises:
            LocalCloudError: If it ends instead.
        """
        loop = asyncio.get_running_loop()
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        mine.setblocking(False)
        self._control, self._ready = mine, loop.create_future()
        options, environ = ["-P"], {"PATH": os.environ.get("PATH", "")}
        if self._site is not None:
            # No packages but those, and no .pyc written: on AWS, too, an artifact cannot be written to.
            options += ["-S", "-B"]
            environ["PYTHONPATH"] = str(self._site)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, *options, str(_SCRIPT), str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                start_new_session=True,  # one for all environments; see forkserver_child._set_up
            )
        loop.add_reader(mine.fileno(), self._receive)
        await self._ready

    def spawn(
        self, fork: Fork, variables: Mapping[str, str], task_root: Path, log: Path, skew: float = 0.0
    ) -> None:
        """Ask for one execution environment; ``fork`` hears of its start and its end.

        Args:
            fork: Who is told.
            variables: Its environment variables, all of them.
            task_root: Its working directory.
            log: File for its output.
            skew: How far its clock is ahead, in seconds.
        """
        self._forks[fork.id] = fork
        command: dict[str, object] = {
            "id": fork.id,
            "env": dict(variables),
            "cwd": str(task_root),
            "log": str(log),
        }
        if skew:
            command["skew"] = float(skew)
        encoded = json.dumps(command).encode()
        if self._control is None or len(encoded) > MAX_COMMAND:
            self._on_exit(fork.id, "the environment variables are too large, or the local cloud is closed")
            return
        try:
            # At most a few hundred small datagrams are ever on their way; the buffer holds them.
            self._control.send(encoded)
        except OSError as exc:
            self._on_exit(fork.id, f"the fork server does not answer ({exc})")

    async def close(self) -> None:
        """Kill every environment and the fork server; returns when they are gone."""
        control, self._control = self._control, None
        if control is not None:
            asyncio.get_running_loop().remove_reader(control.fileno())
            control.close()
        if self._process is not None:
            process, self._process = self._process, None
            await asyncio.to_thread(process.wait)
        for identifier in list(self._forks):
            self._on_exit(identifier, "the local cloud was closed")

    def _receive(self) -> None:
        if self._control is None:
            return
        try:
            message, descriptors, _, _ = socket.recv_fds(self._control, MAX_COMMAND, 4)
        except BlockingIOError:
            return
        except OSError:
            message, descriptors = b"", []
        if not message:
            self._on_end()
            return
        answer = json.loads(message)
        if "ready" in answer:
            assert self._ready is not None
            self._ready.set_result(None)
        elif "pid" in answer:
            for descriptor in descriptors:
                fork = self._forks.get(answer["id"])
                if fork is not None:
                    fork.on_fork(descriptor)
                else:
                    os.close(descriptor)
        elif "status" in answer:
            self._on_exit(answer["id"], exit_reason(answer["status"]))
        else:
            self._on_exit(answer["id"], answer["error"])

    def _on_end(self) -> None:
        assert self._control is not None and self._ready is not None
        asyncio.get_running_loop().remove_reader(self._control.fileno())
        if not self._ready.done():
            self._ready.set_exception(LocalCloudError("the fork server ended while it started"))
        for identifier in list(self._forks):
            self._on_exit(identifier, "the fork server has died")

    def _on_exit(self, identifier: str, reason: str) -> None:
        fork = self._forks.pop(identifier, None)
        if fork is not None:
            fork.on_exit(reason)


def exit_reason(status: int) -> str:
    """A wait status in Lambda's words, such as ``Runtime exited with error: exit status 3``."""
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        name = {9: "killed", 11: "segmentation fault", 15: "terminated", 6: "aborted"}.get(-code, str(-code))
        return f"Runtime exited with error: signal: {name}"
    if code > 0:
        return f"Runtime exited with error: exit status {code}"
    return "Runtime exited without providing a reason"
