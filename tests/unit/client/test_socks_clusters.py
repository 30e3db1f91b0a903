"""Clients of servers that name other servers find all of them through one SOCKS5 server."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys

import pytest

from emissary_lib.client.socks import SocksServer
from tests.helpers.clusters import RedisCluster, ReplicaSet, slot_of
from tests.helpers.patience import HANG
from tests.helpers.socks_client import SUCCEEDED, ask
from tests.helpers.vpc import Vpc

ANY = ("127.0.0.1", 0)

#: One in each third of the slots, as the Redis Cluster specification's CRC16 has it.
KEYS = ("b", "c", "a")


def command(sock: socket.socket, *words: str) -> str:
    """Ask a Redis server something whose answer is one line."""
    text = "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
    sock.sendall(f"*{len(words)}\r\n{text}".encode())
    with sock.makefile("rb") as stream:
        return stream.readline().decode().strip()


def test_the_keys_are_in_the_slots_that_the_specification_gives() -> None:
    assert slot_of("123456789") == 0x31C3  # the specification's own example
    assert {slot_of(key) * 3 // 16_384 for key in KEYS} == {0, 1, 2}


def test_a_redis_cluster_redirects_its_client_to_names_of_the_vpc() -> None:
    cluster = RedisCluster()
    with cluster.running() as hosts, SocksServer(ANY, Vpc(hosts).dial) as address:
        for key in KEYS:
            where = cluster.names[0]
            while True:
                sock, reply = ask(address, where)
                with sock:
                    assert reply == SUCCEEDED
                    answer = command(sock, "SET", key, "value")
                if not answer.startswith("-MOVED"):
                    break
                where = answer.split()[2]
            assert answer == "+OK"
    assert sorted(cluster.served) == cluster.names


def test_redis_py_finds_the_nodes_of_a_cluster() -> None:
    socks = pytest.importorskip("socks", reason="PySocks is not installed")
    redis = pytest.importorskip("redis", reason="redis-py is not installed")
    cluster, left = RedisCluster(), contextlib.ExitStack()
    with cluster.running() as hosts, SocksServer(ANY, Vpc(hosts).dial) as address, left:

        class Connection(redis.Connection):  # type: ignore[misc,name-defined]
            def _connect(self) -> socket.socket:
                made: socket.socket = socks.create_connection(
                    (self.host, self.port),
                    HANG,
                    proxy_type=socks.SOCKS5,
                    proxy_addr=address[0],
                    proxy_port=address[1],
                )
                left.callback(made.close)  # redis-py lets go of some without closing them
                return made

        # From a URL: only then a cluster's client hands the class on to its pools.
        first = f"redis://{cluster.names[0]}?protocol=2"
        with redis.RedisCluster.from_url(first, connection_class=Connection) as client:
            for key in KEYS:
                assert client.set(key, f"value of {key}")
            assert [client.get(key) for key in KEYS] == [f"value of {key}".encode() for key in KEYS]
    assert set(cluster.served) == set(cluster.names)


PYMONGO = """
import socket, sys
import pymongo, socks

# PyMongo has no setting for a proxy: its sockets become PySocks', and names stay names.
socks.set_default_proxy(socks.SOCKS5, sys.argv[1], int(sys.argv[2]), rdns=True)
socket.socket = lambda *kind, **options: socks.socksocket()
socket.getaddrinfo = lambda host, port, *rest, **options: [
    (socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port))
]
with pymongo.MongoClient("mongodb://mongo-a.internal:27017/?replicaSet=rs0") as client:
    client.shop.orders.insert_one({"n": 1})
    print(*client.primary)
"""


def test_pymongo_finds_the_primary_of_a_replica_set() -> None:
    pytest.importorskip("socks", reason="PySocks is not installed")
    pytest.importorskip("pymongo", reason="PyMongo is not installed")
    members = ReplicaSet()
    with members.running() as hosts, SocksServer(ANY, Vpc(hosts).dial) as address:
        done = subprocess.run(
            [sys.executable, "-c", PYMONGO, *map(str, address)],
            capture_output=True,
            text=True,
            timeout=HANG,
            check=False,
        )
    assert (done.returncode, done.stdout, done.stderr) == (0, "mongo-b.internal 27017\n", "")
    assert members.inserted == ["mongo-b.internal:27017"]
