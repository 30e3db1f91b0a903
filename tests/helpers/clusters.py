"""Servers that name other servers, by names that only a VPC knows: a Redis Cluster, a MongoDB replica set.

They speak as much of the protocols as drivers need to find their way: RESP2 (https://redis.io/docs/latest/
develop/reference/protocol-spec/, https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/),
and OP_MSG with the legacy OP_QUERY for the first hello (https://github.com/mongodb/specifications).
"""

from __future__ import annotations

import binascii
import contextlib
import socket
import struct
from collections.abc import Iterator
from io import BufferedReader
from typing import Any, Final

from tests.helpers.servers import Server, Service

SLOTS: Final = 16_384

Hosts = dict[str, tuple[str, int]]


def slot_of(key: str) -> int:
    """The slot of a key without a hash tag: CRC16 as of XMODEM."""
    return binascii.crc_hqx(key.encode(), 0) % SLOTS


class RedisCluster:
    """Nodes that each hold a part of the slots, and tell of the others by name.

    Attributes:
        names: ``"redis-1.internal:6379"`` and so on.
        served: The names of the nodes that have carried out a command on a key, in order.
    """

    def __init__(self, nodes: int = 3) -> None:
        self.names = [f"redis-{number}.internal:6379" for number in range(1, nodes + 1)]
        self.served: list[str] = []
        self._values: dict[str, str] = {}

    @contextlib.contextmanager
    def running(self) -> Iterator[Hosts]:
        """Gives where each node is on loopback."""
        with contextlib.ExitStack() as stack:
            yield {name: stack.enter_context(Server(self._service(name))) for name in self.names}

    def owner(self, slot: int) -> str:
        """The name of the node that has a slot."""
        return self.names[slot * len(self.names) // SLOTS]

    def _ranges(self) -> list[Any]:
        starts = [-(-number * SLOTS // len(self.names)) for number in range(len(self.names) + 1)]
        return [
            [starts[number], starts[number + 1] - 1, [*_split(name), f"{number:040x}"]]
            for number, name in enumerate(self.names)
        ]

    def _service(self, name: str) -> Service:
        def serve(connection: socket.socket) -> None:
            with connection.makefile("rb") as stream:
                while words := _read_words(stream):
                    connection.sendall(_encode(self._answer(name, words)))

        return serve

    def _answer(self, name: str, words: list[str]) -> Any:
        verb = words[0].upper()
        if verb in ("GET", "SET"):
            slot = slot_of(words[1])
            if self.owner(slot) != name:
                return ValueError(f"MOVED {slot} {self.owner(slot)}")
            self.served.append(name)
            if verb == "GET":
                return self._values.get(words[1])
            self._values[words[1]] = words[2]
            return True
        if [word.upper() for word in words[:2]] == ["CLUSTER", "SLOTS"]:
            return self._ranges()
        if verb == "COMMAND":
            return [["get", 2, ["readonly"], 1, 1, 1], ["set", -3, ["write"], 1, 1, 1]]
        if verb in ("PING", "CLIENT", "READONLY"):
            return True
        return ValueError(f"ERR unknown command '{words[0]}'")


def _split(name: str) -> tuple[str, int]:
    host, _colon, port = name.rpartition(":")
    return host, int(port)


def _read_words(stream: BufferedReader) -> list[str]:
    """One command; empty at the end of the stream."""
    head = stream.readline()
    words = []
    for _ in range(int(head[1:] or 0)):
        size = int(stream.readline()[1:])
        words.append(stream.read(size + 2)[:-2].decode())
    return words


def _encode(value: Any) -> bytes:
    match value:
        case None:
            return b"$-1\r\n"
        case True:
            return b"+OK\r\n"
        case ValueError():
            return f"-{value}\r\n".encode()
        case int():
            return f":{value}\r\n".encode()
        case str():
            return f"${len(value)}\r\n{value}\r\n".encode()
    return f"*{len(value)}\r\n".encode() + b"".join(map(_encode, value))


class ReplicaSet:
    """Members that tell of each other by name; one of them is the primary.

    Attributes:
        names: ``"mongo-a.internal:27017"`` and so on; the second is the primary.
        inserted: The names of the members that were asked to insert something, in order.
    """

    _OP_QUERY, _OP_REPLY, _OP_MSG = 2004, 1, 2013

    def __init__(self) -> None:
        self.names = [f"mongo-{letter}.internal:27017" for letter in "abc"]
        self.inserted: list[str] = []

    @contextlib.contextmanager
    def running(self) -> Iterator[Hosts]:
        """Gives where each member is on loopback."""
        with contextlib.ExitStack() as stack:
            yield {name: stack.enter_context(Server(self._service(name))) for name in self.names}

    def _service(self, name: str) -> Service:
        def serve(connection: socket.socket) -> None:
            with connection.makefile("rb") as stream:
                while len(head := stream.read(16)) == 16:
                    size, request, _to, code = struct.unpack("<4i", head)
                    body = stream.read(size - 16)
                    # A query has flags, the collection's name and two numbers before its document.
                    skip = body.index(b"\0", 4) + 9 if code == self._OP_QUERY else 5
                    answer = _bson(self._answer(name, _first_key(body[skip:])))
                    if code == self._OP_QUERY:
                        kind, answer = self._OP_REPLY, struct.pack("<iqii", 8, 0, 0, 1) + answer
                    else:
                        kind, answer = self._OP_MSG, struct.pack("<iB", 0, 0) + answer
                    connection.sendall(struct.pack("<4i", 16 + len(answer), 1, request, kind) + answer)

        return serve

    def _answer(self, name: str, verb: str) -> dict[str, Any]:
        if verb == "insert":
            self.inserted.append(name)
            return {"n": 1, "ok": 1.0}
        if verb in ("hello", "ismaster", "isMaster"):
            primary = self.names[1]
            return {
                "helloOk": True, "ismaster": name == primary, "isWritablePrimary": name == primary,
                "secondary": name != primary, "setName": "rs0", "setVersion": 1, "hosts": self.names,
                "primary": primary, "me": name, "minWireVersion": 0, "maxWireVersion": 21,
                "maxBsonObjectSize": 16_777_216, "maxMessageSizeBytes": 48_000_000,
                "maxWriteBatchSize": 100_000, "ok": 1.0,
            }  # fmt: skip
        return {"ok": 1.0}


def _first_key(document: bytes) -> str:
    """The name of a BSON document's first element, behind its length and that element's type."""
    return document[5 : document.index(b"\0", 5)].decode()


def _bson(document: dict[str, Any]) -> bytes:
    body = b"".join(_element(name.encode() + b"\0", value) for name, value in document.items())
    return struct.pack("<i", len(body) + 5) + body + b"\0"


def _element(name: bytes, value: Any) -> bytes:
    match value:
        case bool():
            return b"\x08" + name + bytes([value])
        case int():
            return b"\x10" + name + struct.pack("<i", value)
        case float():
            return b"\x01" + name + struct.pack("<d", value)
        case str():
            text = value.encode() + b"\0"
            return b"\x02" + name + struct.pack("<i", len(text)) + text
    return b"\x04" + name + _bson({str(number): each for number, each in enumerate(value)})
