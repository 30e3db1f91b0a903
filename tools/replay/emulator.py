"""One function's artifact under AWS's runtime interface emulator, the binary inside aws-sam-cli."""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from tools.replay.errors import ReplayError

#: Longest time until the emulator listens, in seconds, and until it has ended once told to.
START_TIMEOUT: Final = 20.0
STOP_TIMEOUT: Final = 10.0

#: Longest invocation, in seconds; no event keeps a relay for as long.
INVOKE_TIMEOUT: Final = 60.0

#: How often another pair of ports is tried, if one of them was taken meanwhile.
_ATTEMPTS: Final = 3

#: Machine -> what AWS calls its processor.
ARCHITECTURES: Final = {"x86_64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}
_PATH: Final = "/2015-03-31/functions/function/invocations"


def emulator_binary() -> Path:
    """Where the emulator is.

    Raises:
        ReplayError: If aws-sam-cli is not installed, or has none for this machine.
    """
    spec = importlib.util.find_spec("samcli")
    architecture = ARCHITECTURES.get(platform.machine())
    if spec is None or spec.origin is None or architecture is None:
        raise ReplayError(
            f"no emulator for {platform.machine()}: it comes with aws-sam-cli (pip install -e '.[dev]')"
        )
    binary = Path(spec.origin).parent / "local" / "rapid" / f"aws-lambda-rie-{architecture}"
    if not binary.is_file():
        raise ReplayError(f"this aws-sam-cli has no {binary.name}; install aws-sam-cli 1.150 or newer")
    return binary


class Emulator:
    """A context manager: one execution environment, started afresh.

    Args:
        binary: From :func:`emulator_binary`.
        artifact: The function's folder; nothing is ever written there.
        handler: ``module.function``.
        variables: The environment; nothing is inherited.
        site: From :func:`emissary_local.lambda_.runtime_site.make_runtime_site`.
        log: File that gets the emulator's and the function's output.

    Not for several threads: an overlap of two invocations kills the emulator.
    """

    def __init__(
        self, binary: Path, artifact: Path, handler: str, variables: Mapping[str, str], site: Path, log: Path
    ) -> None:
        self._binary = _runnable(binary, log.parent)
        self._artifact = artifact
        self._handler = handler
        self._variables = {**variables, "PYTHONPATH": f"{artifact}{os.pathsep}{site}"}
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0

    def __enter__(self) -> Emulator:
        for attempt in range(_ATTEMPTS):
            try:
                self._start()
                return self
            except ReplayError:
                self.close()
                if attempt + 1 == _ATTEMPTS:
                    raise
        raise AssertionError("unreachable")

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End it, and the function with it. Idempotent."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def invoke(self, event: Any) -> Any:
        """Invoke the function and wait for its answer.

        Returns:
            The answer, or, if the handler raised, Lambda's error object.

        Raises:
            ReplayError: If there is no answer, or none in JSON (a timeout's is not).
        """
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=INVOKE_TIMEOUT)
        try:
            connection.request("POST", _PATH, json.dumps(event).encode())
            body = connection.getresponse().read()
            return json.loads(body)
        except (OSError, http.client.HTTPException) as exc:
            raise ReplayError(f"the emulator gave no answer ({exc!r}):\n{self.output()}") from exc
        except ValueError:
            raise ReplayError(f"the function gave no JSON but {body[:200]!r}:\n{self.output()}") from None
        finally:
            connection.close()

    def output(self) -> str:
        """What emulator and function have written so far."""
        return self._log.read_text(encoding="utf-8", errors="replace") if self._log.exists() else ""

    def _start(self) -> None:
        # The emulator takes no port 0: its child must be told the other one. So two free ones are looked for,
        # and others if somebody else is quicker.
        self._port, runtime_port = _free_ports()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    str(self._binary),
                    "--runtime-interface-emulator-address", f"127.0.0.1:{self._port}",
                    "--runtime-api-address", f"127.0.0.1:{runtime_port}",
                    # Only the artifact and the site: no other packages, and no .pyc written.
                    sys.executable, "-S", "-B", "-m", "awslambdaric", self._handler,
                ],
                cwd=self._artifact, env=self._variables, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            if self._process.poll() is not None:
                raise ReplayError(f"the emulator ended while it started:\n{self.output()}")
            try:
                socket.create_connection(("127.0.0.1", self._port), 1.0).close()
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise ReplayError(f"the emulator does not listen:\n{self.output()}") from None
            time.sleep(0.01)


def _runnable(binary: Path, folder: Path) -> Path:
    if os.access(binary, os.X_OK):
        return binary
    copy = folder / binary.name  # pip keeps no modes
    if not copy.exists():
        shutil.copyfile(binary, copy)
        copy.chmod(0o700)
    return copy


def _free_ports() -> tuple[int, int]:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        return one.getsockname()[1], other.getsockname()[1]
