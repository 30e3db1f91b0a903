"""Where a forwarded port listens: which addresses, and what becomes of a socket's file."""

from __future__ import annotations

import errno
import fcntl
import os
import pathlib
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator

import pytest

from emissary_lib.client import listening
from emissary_lib.client.listening import BACKLOG, Listener, check_address, listen
from emissary_lib.exceptions import ConfigError
from tests.helpers.patience import HANG

IPV6 = socket.has_ipv6


@pytest.fixture
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A folder that is the working directory: a path as long as pytest's own is too long for a socket."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def close(listeners: list[Listener]) -> None:
    for listener in listeners:
        listener.close()


def connect(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)


@pytest.mark.skipif(not IPV6, reason="this machine has no IPv6")
def test_localhost_is_both_of_its_addresses_at_one_free_port() -> None:
    """Symptom: a client that resolved localhost to ::1 was refused."""
    listeners = listen(("localhost", 0))
    try:
        port = listeners[0].address[1]
        assert [listener.address for listener in listeners] == [("127.0.0.1", port), ("::1", port)]
        for host in ("127.0.0.1", "::1"):
            socket.create_connection((host, port)).close()
    finally:
        close(listeners)


@pytest.mark.skipif(not IPV6, reason="this machine has no IPv6")
def test_a_port_of_localhost_s_that_is_busy_on_one_address_alone_is_busy_and_nothing_is_left() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match="in use"):
            listen(("localhost", port))  # what it had at 127.0.0.1 would be found by who looks for leaks


class At(Listener):
    """A listener that has the address which it is told."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(socket.socket())
        self._at = host, port

    @property
    def address(self) -> tuple[str, int]:
        return self._at


class Machine:
    """Gives out the ports that it is told, and knows which fail on ``::1``, and how."""

    def __init__(self, ports: Iterator[int], fails: dict[int, int]) -> None:
        self.ports = ports
        self.fails = fails
        self.made: list[Listener] = []

    def listen_tcp(self, host: str, port: int) -> Listener:
        if host == "::1" and port in self.fails:
            raise OSError(self.fails[port], os.strerror(self.fails[port]))
        self.made.append(At(host, port or next(self.ports)))
        return self.made[-1]


def test_a_free_port_is_one_that_is_free_on_both() -> None:
    machine = Machine(iter([1, 2, 3]), {1: errno.EADDRINUSE, 2: errno.EADDRINUSE})
    found = listening._listen_both(0, machine.listen_tcp)
    assert [each.address for each in found] == [("127.0.0.1", 3), ("::1", 3)]
    assert [each.sock.fileno() for each in machine.made if each not in found] == [-1, -1]
    close(found)


def test_no_port_that_is_free_on_both_is_looked_for_for_ever() -> None:
    machine = Machine(iter([1] * 1000), {1: errno.EADDRINUSE})
    with pytest.raises(OSError, match="in use"):
        listening._listen_both(0, machine.listen_tcp)
    assert {each.sock.fileno() for each in machine.made} == {-1}


@pytest.mark.parametrize("number", [errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT])
def test_without_ipv6_localhost_is_the_other_address_alone(number: int) -> None:
    (found,) = listening._listen_both(0, Machine(iter([1]), {1: number}).listen_tcp)
    assert found.address == ("127.0.0.1", 1)
    found.close()


def test_a_unix_socket_is_this_user_s_alone_and_its_file_goes_away(folder: pathlib.Path) -> None:
    before = os.umask(0)
    try:
        (listener,) = listen("./socket")
    finally:
        os.umask(before)
    mode = os.stat("socket").st_mode
    assert (stat.S_ISSOCK(mode), stat.S_IMODE(mode)) == (True, 0o600)
    assert (listener.path, listener.address) == (str(folder / "socket"), (str(folder / "socket"), 0))
    connect("socket")
    listener.close()
    listener.close()
    assert os.listdir(".") == []


@pytest.mark.parametrize("where", ["./there", "./there/", "./there/.s.PGSQL.5432"])
def test_a_directory_stands_for_the_name_that_libpq_looks_for(folder: pathlib.Path, where: str) -> None:
    os.mkdir("there")
    (listener,) = listen(where, 5432)
    assert os.listdir("there") == [".s.PGSQL.5432"]
    assert listener.address == (str(folder / "there"), 5432)
    listener.close()


def test_what_a_dead_process_has_left_behind_is_replaced(folder: pathlib.Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind("socket")
        dead.listen()
    (listener,) = listen("./socket")
    connect("socket")
    listener.close()
    assert os.listdir(".") == []


@pytest.mark.parametrize("backlog", [BACKLOG, 0], ids=["free", "full"])
def test_a_socket_that_somebody_listens_at_is_left_alone(folder: pathlib.Path, backlog: int) -> None:
    with socket.socket(socket.AF_UNIX) as live, socket.socket(socket.AF_UNIX) as waits:
        live.bind("socket")
        live.listen(backlog)
        if not backlog:
            waits.connect("socket")
        with pytest.raises(OSError, match="a process that is running listens there") as caught:
            listen("./socket")
        assert caught.value.errno == errno.EADDRINUSE
        assert os.listdir(".") == ["socket"]


@pytest.mark.parametrize("kind", ["file", "link", "link to nothing"])
def test_what_is_no_socket_is_never_removed(folder: pathlib.Path, kind: str) -> None:
    path = folder / "socket"
    if kind == "file":
        path.write_text("precious")
    else:
        path.symlink_to(folder / "elsewhere")
        if kind == "link":
            (folder / "elsewhere").write_text("precious")
    before = sorted(os.listdir("."))
    with pytest.raises(OSError, match="something else than a socket, which is left alone"):
        listen("./socket")
    assert sorted(os.listdir(".")) == before


def test_a_path_that_is_too_long_says_so_and_leaves_nothing(folder: pathlib.Path) -> None:
    with pytest.raises(OSError, match="a path of 202 bytes is too long for a Unix socket") as caught:
        listen("./" + "x" * 200)
    assert caught.value.errno == errno.ENAMETOOLONG
    assert os.listdir(".") == []


def test_a_directory_that_is_not_there_is_not_made(folder: pathlib.Path) -> None:
    with pytest.raises(FileNotFoundError):
        listen("./no/socket")
    assert os.listdir(".") == []


def test_somebody_else_s_socket_in_our_place_is_not_removed(folder: pathlib.Path) -> None:
    (listener,) = listen("./socket")
    os.unlink("socket")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind("socket")
        listener.close()
        assert os.listdir(".") == ["socket"]


def test_a_working_directory_that_changes_does_not_keep_the_file(folder: pathlib.Path) -> None:
    (listener,) = listen("./socket")
    os.mkdir("elsewhere")
    os.chdir("elsewhere")
    listener.close()
    assert os.listdir(folder) == ["elsewhere"]


def test_a_forked_child_does_not_remove_its_parent_s_socket(folder: pathlib.Path) -> None:
    program = """
import os
from emissary_lib.client.listening import listen
(listener,) = listen("./socket")
pid = os.fork()
if not pid:
    listener.close()
    os._exit(0)
os.waitpid(pid, 0)
assert os.path.exists("socket")
listener.close()
assert not os.path.exists("socket")
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=HANG)


def test_a_directory_that_somebody_keeps_locked_is_an_error_and_not_waited_for(folder: pathlib.Path) -> None:
    held = os.open(".", os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(OSError, match="another process keeps its directory locked"):
            listen("./socket")
    finally:
        os.close(held)
    (listener,) = listen("./socket")
    listener.close()


@pytest.mark.parametrize("where", [("127.0.0.1", 0), ("localhost", 0)])
def test_a_port_is_claimed_where_others_could_take_it(
    where: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "SO_EXCLUSIVEADDRUSE", socket.SO_KEEPALIVE, raising=False)
    listeners = listen(where)
    try:
        for listener in listeners:
            assert listener.sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert not listener.sock.getsockopt(
                socket.SOL_SOCKET, socket.SO_REUSEADDR
            )  # they exclude each other
    finally:
        close(listeners)


def test_a_port_whose_last_connection_is_not_forgotten_yet_can_be_taken_again() -> None:
    (first,) = listen(("127.0.0.1", 0))
    address = first.address
    with socket.create_connection(address):
        first.sock.setblocking(True)
        accepted, _address = first.sock.accept()
        accepted.close()  # first, so that the connection is remembered on this side
        first.close()
    close(listen(address))


@pytest.mark.parametrize("where", ["socket", "127.0.0.1:5432", "./a\0b"])
def test_what_is_no_path_of_a_socket_is_refused(where: str) -> None:
    with pytest.raises(ConfigError, match="with a slash in it"):
        check_address(where)
