"""The tables: moto, in the very process that the local cloud uses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any

from botocore.session import Session

from emissary_local.template import names
from emissary_local.template.specs import TableSpec
from tools.replay.errors import ReplayError
from tools.replay.items import from_dynamodb, to_dynamodb


class Tables:
    """A context manager: the tables, empty at first. Which one an item is of its keys tell.

    Args:
        specs: The tables, from the template.
        listen: Address of this machine to listen on.
    """

    def __init__(self, specs: Sequence[TableSpec], listen: str = "127.0.0.1") -> None:
        self._keys = {spec.name: _keys(spec) for spec in specs}
        self._definitions = [spec.definition for spec in specs]
        self._listen = listen
        self._process = subprocess.Popen(
            [sys.executable, "-m", "emissary_local.aws.dynamodb.server", listen],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PATH": os.environ.get("PATH", ""), "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        self.url = ""
        self._client: Any = None

    def __enter__(self) -> Tables:
        try:
            assert self._process.stdout is not None
            line = self._process.stdout.readline()
            if not line:
                raise ReplayError("the DynamoDB process ended while it started; see its traceback")
            self.url = f"http://{self._listen}:{json.loads(line)['port']}"
            self._client = Session().create_client(
                "dynamodb", region_name=names.REGION, endpoint_url=self.url,
                aws_access_key_id="replay", aws_secret_access_key="replay",
            )  # fmt: skip
            for definition in self._definitions:
                self._client.create_table(**definition)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process. Idempotent."""
        if self._client is not None:
            self._client.close()
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def replace(self, items: Iterable[Mapping[str, Any]]) -> None:
        """Have the tables hold these items, in their readable form, and no others."""
        for table, keys in self._keys.items():
            for item in self._scan(table):
                self._client.delete_item(TableName=table, Key={name: item[name] for name in keys})
        for each in items:
            (table,) = (table for table, keys in self._keys.items() if each.keys() >= set(keys))
            self._client.put_item(TableName=table, Item=to_dynamodb(each))

    def items(self) -> list[dict[str, Any]]:
        """All items in their readable form, table by table in the order of their keys."""
        return [
            item
            for table, keys in self._keys.items()
            for item in sorted(
                map(from_dynamodb, self._scan(table)), key=lambda item: [str(item[name]) for name in keys]
            )
        ]

    def _scan(self, table: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._client.scan(TableName=table, ConsistentRead=True)["Items"]
        return found


def _keys(spec: TableSpec) -> list[str]:
    return [entry["AttributeName"] for entry in spec.definition["KeySchema"]]
