"""The cases in the containers of ``sam local invoke``, which needs Docker or Finch.

SAM gives a function the variables that its template declares, and no others: ``--env-vars`` changes values
only, and of a ``!Ref`` to a table or a secret SAM makes its logical id. So each invocation gets a template of
its own, with the one function, from its built artifact, and with variables that lead to the stand-ins.

Source: aws-sam-cli, ``samcli/local/lambdafn/env_vars.py``.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from emissary_local.template import names
from emissary_local.template.specs import FunctionSpec
from tools.replay.emulator import ARCHITECTURES
from tools.replay.errors import ReplayError
from tools.replay.run import Environment, Replayer

#: The command; a test puts another in its place.
SAM: Final = (sys.executable, "-W", "ignore", "-m", "samcli")

#: Longest invocation, in seconds: the first one fetches Lambda's image.
TIMEOUT: Final = 600.0

#: What of a shell's variables SAM would hand on to the function.
_HANDED_ON: Final = ("AWS_", "EMISSARY_", "POWERTOOLS_")


def template(spec: FunctionSpec, artifact: Path, variables: Mapping[str, str]) -> dict[str, Any]:
    """A template of one function.

    Args:
        spec: The function.
        artifact: Its folder.
        variables: What it is to find in its environment, beside what SAM gives it.
    """
    properties = {
        "Runtime": spec.runtime,
        "Architectures": [ARCHITECTURES.get(platform.machine(), "x86_64")],
        "CodeUri": str(artifact),
        "Handler": spec.handler,
        "MemorySize": spec.memory,
        "Timeout": int(spec.timeout),
        "Environment": {"Variables": dict(variables)},
    }
    function = {"Type": "AWS::Serverless::Function", "Properties": properties}
    return {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Transform": "AWS::Serverless-2016-10-31",
        "Resources": {spec.logical_id: function},
    }


class SamReplayer(Replayer):
    """A :class:`Replayer` that has ``sam local invoke`` run the functions.

    Args:
        listen: Address of this machine that containers reach, such as 172.17.0.1, Docker's own on Linux.
        sam: The sam command.

    Raises:
        ReplayError: On entering, also if ``listen`` is no address of this machine.
    """

    def __init__(
        self, source: Path, artifacts: Path, *, listen: str = "127.0.0.1", sam: Sequence[str] = SAM
    ) -> None:
        super().__init__(source, artifacts, listen=listen)
        self._sam = sam

    def __enter__(self) -> SamReplayer:
        try:
            socket.create_server((self._listen, 0)).close()
        except OSError as exc:
            raise ReplayError(
                f"cannot listen on {self._listen} ({exc.strerror}); is Docker running? Else name the address "
                "of this machine that its containers reach: --listen ADDRESS"
            ) from exc
        super().__enter__()
        return self

    @contextlib.contextmanager
    def environment(self, function: str, services: str, websocket: str) -> Iterator[Environment]:
        """See :meth:`Replayer.environment`."""
        spec = self._template.functions[function]
        variables = {
            **spec.environment,
            **self._endpoints(services, websocket).variables(),
            "AWS_ENDPOINT_URL_DYNAMODB": self._tables.url,
        }
        yield _Invocations(
            self._sam, self._folder, spec, template(spec, self._artifacts / function, variables)
        )


class _Invocations:
    def __init__(
        self, sam: Sequence[str], folder: Path, spec: FunctionSpec, document: Mapping[str, Any]
    ) -> None:
        self._template, self._event = folder / "template.json", folder / "event.json"
        self._template.write_text(json.dumps(document), encoding="utf-8")
        self._command = [
            *sam, "local", "invoke", spec.logical_id, "--template", str(self._template),
            "--event", str(self._event), "--region", names.REGION,
        ]  # fmt: skip
        self._output = ""

    def invoke(self, event: Any) -> Any:
        self._event.write_text(json.dumps(event), encoding="utf-8")
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(_HANDED_ON)}
        # Whoever runs this may have credentials; the containers get others.
        ours = {"AWS_ACCESS_KEY_ID": "replay", "AWS_SECRET_ACCESS_KEY": "replay", "SAM_CLI_TELEMETRY": "0"}
        try:
            done = subprocess.run(
                self._command, env={**inherited, **ours}, cwd=self._template.parent, stdin=subprocess.DEVNULL,
                capture_output=True, text=True, errors="replace", timeout=TIMEOUT,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise ReplayError(f"sam local invoke took longer than {TIMEOUT:g} s") from None
        self._output += done.stdout + done.stderr
        answer = done.stdout.strip().rpartition("\n")[2]
        try:
            if done.returncode:
                raise ValueError
            return json.loads(answer)
        except ValueError:
            raise ReplayError(f"sam local invoke gave no answer:\n{self._output}") from None

    def output(self) -> str:
        return self._output
