"""What is left behind: sockets, threads, processes, session items; and how much memory was used."""

from __future__ import annotations

import base64
import json
import os
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from emissary_lib.bridge.items import read_session
from emissary_lib.bridge.session import RecordState
from emissary_local.template.names import REGION
from tools.bench.processes import family

#: State of a listening socket in ``/proc/net/tcp``. Source: Linux, include/net/tcp_states.h.
_LISTEN: Final = "0A"


def sockets(pid: int | str = "self") -> set[str]:
    """Inodes of a process's sockets; none for a process that is gone."""
    found: set[str] = set()
    try:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            try:
                name = os.readlink(entry)
            except OSError:  # closed meanwhile
                continue
            if name.startswith("socket:["):
                found.add(name[8:-1])
    except OSError:
        pass
    return found


def named(inodes: set[str]) -> list[str]:
    """What those sockets are, as far as they are TCP: local and remote port, and state in hexadecimal."""
    rows = {row[9]: f"{port(row[1])}-{port(row[2])} {row[3]}" for row in tcp_rows() if row[9] in inodes}
    return sorted(rows.get(inode, inode) for inode in inodes)


def port(address: str) -> int:
    """The port in an address of ``/proc/net/tcp``."""
    return int(address.rpartition(":")[2], 16)


def tunnel_threads() -> list[str]:
    """Names of the library's own threads that run now."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("emissary-")]


def peak_memory(pid: int | str = "self") -> float:
    """Highest resident set of a process so far, in MB; 0 for one that is gone."""
    return _memory(pid, "VmHWM:")


def resident_memory(pid: int | str = "self") -> float:
    """Resident set of a process now, in MB; 0 for one that is gone."""
    return _memory(pid, "VmRSS:")


def _memory(pid: int | str, name: str) -> float:
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) * 1024 / 1e6
    except OSError:
        pass
    return 0.0


def relays(cloud_pid: int, ports: Iterable[int]) -> Iterator[int]:
    """Processes of the local cloud that hold a connection to one of the targets' ports."""
    wanted = {f"{port:04X}" for port in ports}
    inodes = {row[9] for row in tcp_rows() if row[2].rpartition(":")[2] in wanted}
    for pid in family(cloud_pid):
        if sockets(pid) & inodes:
            yield pid


def session_items(cloud_pid: int) -> list[dict[str, Any]]:
    """All items of the local cloud's tables, past any fault: asked of the process that keeps them.

    Raises:
        OSError: It does not answer, or there is none.
    """
    listening = {row[9]: port(row[1]) for row in tcp_rows() if row[3] == _LISTEN}
    for pid in family(cloud_pid):
        if b"emissary_local.aws.dynamodb.server" not in Path(f"/proc/{pid}/cmdline").read_bytes():
            continue
        for inode in sockets(pid) & set(listening):
            url = f"http://127.0.0.1:{listening[inode]}/"
            tables = _ask(url, "ListTables", {})["TableNames"]
            return [item for table in tables for item in _scan(url, table)]
    raise OSError("the process that keeps the local cloud's table was not found")


def leaked_items(items: list[dict[str, Any]]) -> list[str]:
    """Items that nothing will ever end or remove; :mod:`tests.soak.lost` judges those that time will end."""
    found = []
    for item in items:
        key = item["pk"]["S"][:10]
        if "purge_at" not in item:
            found.append(f"{key} has no time to live")
        elif key.startswith("S#"):
            session = read_session(item)
            if session.state is not RecordState.ENDED and session.loss(session.purge_at) is None:
                found.append(f"{key} is {session.state.value} for ever")
    return found


def ends(items: list[dict[str, Any]]) -> Counter[str]:
    """How the sessions ended, by the table, once nobody is left who could still go on with one.

    ``ENDED`` ones by their recorded code. One that neither client came back to, and whose end no message
    could report, stays as it is, and whoever reads it past its time takes it for lost: ``lost`` and the code
    that he will find (:meth:`emissary_lib.bridge.session.SessionRecord.loss`).
    """
    found: Counter[str] = Counter()
    for item in items:
        if item["pk"]["S"].startswith("S#"):
            session = read_session(item)
            if session.ending is not None:
                found[session.ending.code.name] += 1
            elif (loss := session.loss(session.purge_at)) is not None:
                found[f"lost: {loss.code.name}"] += 1
    return found


def _scan(url: str, table: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    start: dict[str, Any] = {}
    while True:
        answer = _ask(url, "Scan", {"TableName": table, "ConsistentRead": True, **start})
        items += [{name: _typed(value) for name, value in item.items()} for item in answer["Items"]]
        if "LastEvaluatedKey" not in answer:
            return items
        start = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}


def _typed(value: dict[str, Any]) -> dict[str, Any]:
    """An attribute as the SDK gives it: bytes are base64 in JSON."""
    return {kind: base64.b64decode(found) if kind == "B" else found for kind, found in value.items()}


def _ask(url: str, operation: str, arguments: dict[str, Any]) -> dict[str, Any]:
    headers = {
        "X-Amz-Target": f"DynamoDB_20120810.{operation}",
        "Content-Type": "application/x-amz-json-1.0",
        "Authorization": f"AWS4-HMAC-SHA256 Credential=SOAK/20260101/{REGION}/dynamodb/aws4_request",
    }
    request = urllib.request.Request(url, json.dumps(arguments).encode(), headers)
    with urllib.request.urlopen(request, timeout=10) as response:
        answer: dict[str, Any] = json.load(response)
    return answer


def tcp_rows() -> list[list[str]]:
    """Rows of ``/proc/net/tcp``: 1 is the local address, 2 the remote one, 3 the state, 9 the inode."""
    return [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
