"""The local DynamoDB: starts the process behind it, creates the template's tables, forwards requests."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from typing import IO, Any, Final, NamedTuple

import aiohttp

from emissary_local.aws.dynamodb.sizes import WRITTEN
from emissary_local.errors import LocalCloudError
from emissary_local.template import names
from emissary_local.template.specs import TableSpec

#: How long the process may take to start, in seconds.
START_TIMEOUT: Final = 30.0

_TARGET: Final = "DynamoDB_20120810."
#: moto finds the region and the service in the credential scope.
_AUTHORIZATION: Final = f"AWS4-HMAC-SHA256 Credential=LOCAL/20260101/{names.REGION}/dynamodb/aws4_request"


class Answer(NamedTuple):
    """What DynamoDB answers.

    Attributes:
        status: The HTTP status.
        body: The answer's JSON.
        written: Bytes of each item that was written or checked, the larger of before and after.
    """

    status: int
    body: bytes
    written: tuple[int, ...] = ()


class Tables:
    """The tables of one local cloud.

    Args:
        log: File that gets what the process writes (nothing, unless it breaks).

    Thread safety: none; use it on one event loop.
    """

    def __init__(self, log: IO[bytes]) -> None:
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._session: aiohttp.ClientSession | None = None
        self._url = ""

    async def start(self, tables: Iterable[TableSpec]) -> None:
        """Start the process and create ``tables``; returns when they answer.

        Raises:
            LocalCloudError: If the process ends instead, is too slow, or refuses a table.
        """
        self._process = subprocess.Popen(
            [sys.executable, "-m", "emissary_local.aws.dynamodb.server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={"PATH": os.environ.get("PATH", ""), "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        try:
            line = await asyncio.wait_for(asyncio.to_thread(self._first_line), START_TIMEOUT)
        except TimeoutError as exc:
            self._process.kill()
            raise LocalCloudError(f"the DynamoDB process did not start in {START_TIMEOUT:.0f} s") from exc
        if not line:
            raise LocalCloudError("the DynamoDB process ended while it started; see its traceback")
        self._url = f"http://127.0.0.1:{json.loads(line)['port']}/"
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=32), auto_decompress=False, skip_auto_headers=("User-Agent",)
        )
        for table in tables:
            await self._call("CreateTable", table.definition)
            if table.ttl_attribute is not None:
                ttl = {"Enabled": True, "AttributeName": table.ttl_attribute}
                await self._call(
                    "UpdateTimeToLive", {"TableName": table.name, "TimeToLiveSpecification": ttl}
                )
            await self._call("Scan", {"TableName": table.name})  # imports what moto imports late

    async def forward(self, target: str, body: bytes) -> Answer:
        """Pass one request on.

        Args:
            target: The ``X-Amz-Target`` header.
            body: The request's JSON.

        Raises:
            LocalCloudError: If the process does not answer.
        """
        if self._session is None:
            raise LocalCloudError("the DynamoDB process is not running")
        headers = {
            "X-Amz-Target": target,
            "Content-Type": "application/x-amz-json-1.0",
            "Authorization": _AUTHORIZATION,
            "Accept-Encoding": "identity",
        }
        try:
            async with self._session.post(self._url, data=body, headers=headers) as response:
                written = tuple(map(int, filter(None, response.headers.get(WRITTEN, "").split(","))))
                return Answer(response.status, await response.read(), written)
        except aiohttp.ClientError as exc:
            raise LocalCloudError(f"the DynamoDB process does not answer ({exc})") from exc

    async def close(self) -> None:
        """End the process; its tables are gone."""
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()
        if self._process is not None:
            process, self._process = self._process, None
            process.kill()
            await asyncio.to_thread(process.wait)
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()

    def _first_line(self) -> bytes:
        assert self._process is not None and self._process.stdout is not None
        return self._process.stdout.readline()

    async def _call(self, operation: str, arguments: Mapping[str, Any]) -> None:
        answer = await self.forward(_TARGET + operation, json.dumps(arguments).encode())
        if answer.status != 200:
            name = arguments.get("TableName")
            raise LocalCloudError(f"the table {name} cannot be created: {operation}: {answer.body.decode()}")
