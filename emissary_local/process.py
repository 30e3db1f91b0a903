"""The cloud process, as its user sees it: what it needs, started, asked over a pipe, ended."""

from __future__ import annotations

import importlib.util
import json
import os
import selectors
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from emissary_local.errors import LocalCloudError, MissingPackagesError

#: How long the cloud process may take to end all it started before it is killed, in seconds.
CLOSE_TIMEOUT: Final = 10.0

#: Modules of the ``local`` extra that the local cloud cannot start without.
REQUIRED_MODULES: Final = (
    "aiohttp", "awslambdaric", "boto3", "moto", "samtranslator", "trustme", "websockets", "yaml",
)  # fmt: skip


def check_requirements(platform: str = sys.platform, modules: tuple[str, ...] = REQUIRED_MODULES) -> None:
    """Check the operating system and the installed packages.

    Raises:
        LocalCloudError: If this is not Linux.
        MissingPackagesError: If packages are missing; names them.
    """
    if platform != "linux":
        raise LocalCloudError(
            f"the local cloud runs on Linux only, not on {platform}: AWS's Lambda runtime client does too. "
            "Use a container or a virtual machine"
        )
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingPackagesError(
            f"the local cloud needs {', '.join(missing)}; install it with: pip install 'emissary-lib[local]'",
            name=missing[0],
        )


class CloudProcess:
    """One cloud process, its pipe, and the directory of its logs, which goes with it.

    Thread safety: one thread at a time; :attr:`alive` and :attr:`directory` from any.

    Raises:
        OSError: If the process cannot be started.
    """

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="emissary-local-"))
        self._received = b""
        try:
            with open(self.directory / "cloud.log", "ab") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "emissary_local.server"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    start_new_session=True,  # Ctrl-C is ours to handle
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
                )
        except BaseException:
            shutil.rmtree(self.directory, ignore_errors=True)
            raise

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it is running."""
        return self._process.poll() is None

    def ask(self, message: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        """Send one line and return the answer.

        Raises:
            LocalCloudError: If the process has died, or does not answer within ``timeout`` seconds.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()
        except OSError as exc:
            raise LocalCloudError(f"the cloud process has died{self.tail()}") from exc
        deadline = time.monotonic() + timeout
        output = self._process.stdout.fileno()
        with selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ)
            while b"\n" not in self._received:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise LocalCloudError(f"the cloud process did not answer in {timeout:.0f} s{self.tail()}")
                data = os.read(output, 65_536)
                if not data:
                    raise LocalCloudError(f"the cloud process has died{self.tail()}")
                self._received += data
        line, _, self._received = self._received.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def tail(self) -> str:
        """The last lines of the process's own log, as the end of an error message."""
        log = self.directory / "cloud.log"
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:] if log.exists() else []
        return "".join(f"\n  {line}" for line in lines)

    def stop(self) -> None:
        """End it and all it started, and remove the directory; at most :data:`CLOSE_TIMEOUT` seconds."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.close()
        except OSError:
            pass  # it has died with an unread command in the pipe
        try:
            self._process.wait(CLOSE_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()  # its children are told by the kernel
            self._process.wait()
        self._process.stdout.close()
        shutil.rmtree(self.directory, ignore_errors=True)
