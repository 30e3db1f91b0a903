"""What servers of each kind answer: enough to tell that the right one is there, and no more.

Nothing is logged in to, and nothing of the conversation is kept. Sources: PostgreSQL documentation, "Message
Flow", SSL Session Encryption, and "Error and Notice Message Fields"; MySQL Internals,
"Protocol::HandshakeV10" and "ERR_Packet"; Redis documentation, "RESP protocol specification".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from emissary_lib.doctor.checks import Finding, failure, ok
from emissary_lib.exit_status import Exit
from emissary_lib.protocol.wire.text import clean

#: Longest text of a server's that is shown, in characters.
_SHOWN: Final = 120


@dataclass(frozen=True, slots=True)
class ServiceProbe:
    """How to recognise one kind of server.

    Attributes:
        name: As ``--service`` has it.
        title: For people.
        port: Where such servers usually are.
        request: What is sent first; empty if the server speaks first.
        read: What the server's bytes mean; ``None`` if more are needed.
        silence: What it may mean that the server sends nothing.
    """

    name: str
    title: str
    port: int
    request: bytes
    read: Callable[[bytes], Finding | None]
    silence: str

    def judge(self, data: bytes, ended: bool) -> Finding | None:
        """What the bytes so far mean; never ``None`` once the target has ended its stream."""
        found = self.read(data)
        if found is not None:
            return found
        other = guess_server(data)
        if other is not None and other != self.title:
            return _failure(f"{other} answers, not {self.title}", "check the port, or give --service")
        if not ended:
            return None
        if data:
            return _failure(
                f"it closed the connection in the middle of {self.title}'s answer", "see the server's own log"
            )
        return _failure(f"it closed the connection without an answer of {self.title}", self.silence)


def _failure(fact: str, hint: str) -> Finding:
    return failure(Exit.SERVICE, fact, hint)


def _text(data: bytes) -> str:
    return clean(data.decode("utf-8", "replace"), _SHOWN)


# -- PostgreSQL: SSLRequest, answered by one byte -----------------------------------------------


def read_postgres(data: bytes) -> Finding | None:
    """The answer to SSLRequest."""
    match data[:1]:
        case b"S":
            return ok("PostgreSQL answers, and offers TLS")
        case b"N":
            return ok("PostgreSQL answers, without TLS")
        case b"E":
            return _postgres_error(data)
        case b"":
            return None
    return _failure(
        f"{guess_server(data) or 'something else'} answers, not PostgreSQL",
        "check the port, or give --service",
    )


def _postgres_error(data: bytes) -> Finding | None:
    if len(data) < 5:
        return None
    length = int.from_bytes(data[1:5], "big")
    if not 4 < length < 65_536:
        return _failure("something else answers, not PostgreSQL", "check the port, or give --service")
    if len(data) < 1 + length:
        return None
    fields = {field[:1]: field[1:] for field in data[5 : 1 + length].split(b"\0") if field}
    said = _text(fields.get(b"M", b"")) or "an error without a text"
    return _failure(f"PostgreSQL refuses: {said}", "it is reached, but refuses: see its own log")


# -- MySQL and MariaDB: they speak first --------------------------------------------------------

#: MariaDB puts this before its version, for old replicas of MySQL.
_MARIADB_PREFIX: Final = "5.5.5-"


def read_mysql(data: bytes) -> Finding | None:
    """The initial handshake, or an error in its place."""
    if len(data) < 5:
        return None
    length = int.from_bytes(data[:3], "little")
    if not 4 < length < 4096 or data[3] != 0 or data[4] not in (9, 10, 0xFF):
        return _failure(
            f"{guess_server(data) or 'something else'} answers, not MySQL or MariaDB",
            "check the port, or give --service",
        )
    if len(data) < 4 + length:
        return None
    payload = data[4 : 4 + length]
    if payload[0] == 0xFF:
        said = f"{_text(payload[3:])} (error {int.from_bytes(payload[1:3], 'little')})"
        return _failure(f"the server refuses: {said}", "it is reached, but refuses: see its own log")
    version = _text(payload[1:].partition(b"\0")[0]).removeprefix(_MARIADB_PREFIX)
    name = "MariaDB" if "mariadb" in version.lower() else "MySQL"
    return ok(f"{name} {version} answers")


# -- Redis: PING --------------------------------------------------------------------------------


def read_redis(data: bytes) -> Finding | None:
    """The answer to PING."""
    if data[:1] not in (b"", b"+", b"-"):
        return _failure(
            f"{guess_server(data) or 'something else'} answers, not Redis",
            "check the port, or give --service",
        )
    line, end, _rest = data.partition(b"\r\n")
    if not end:
        return None
    if line == b"+PONG":
        return ok("Redis answers, and asks for no password")
    if line.startswith((b"-NOAUTH", b"-NOPERM", b"-WRONGPASS")):
        return ok("Redis answers, and asks for a password")
    return _failure(f"Redis refuses: {_text(line[1:])}", "it is reached, but refuses: see its configuration")


def guess_server(data: bytes) -> str | None:
    """What kind of server sends this; ``None`` if that is not plain."""
    if data.startswith(b"SSH-"):
        return "an SSH server"
    if data.startswith(b"HTTP/"):
        return "a web server"
    if data.startswith((b"220 ", b"220-")):
        return "a mail or FTP server"
    if data[:1] in (b"\x15", b"\x16") and data[1:2] == b"\x03":
        return "a TLS server"
    if len(data) > 5 and data[3] == 0 and data[4] == 10 and 4 < int.from_bytes(data[:3], "little") < 4096:
        return "MySQL or MariaDB"
    if data.startswith((b"+PONG", b"-ERR", b"-NOAUTH", b"-DENIED")):
        return "Redis"
    return None


POSTGRES: Final = ServiceProbe(
    "postgres",
    "PostgreSQL",
    5432,
    bytes.fromhex("00 00 00 08 04 d2 16 2f"),  # SSLRequest: Int32(8) Int32(80877103)
    read_postgres,
    "a pooler or proxy before the database may have no database to hand on to: see its log",
)
MYSQL: Final = ServiceProbe(
    "mysql",
    "MySQL or MariaDB",
    3306,
    b"",
    read_mysql,
    "the server may be starting, or block this host after too many broken connections (FLUSH HOSTS)",
)
REDIS: Final = ServiceProbe(
    "redis",
    "Redis",
    6379,
    b"PING\r\n",
    read_redis,
    "a server that wants TLS (ElastiCache: in-transit encryption) hangs up, or stays silent, on plain text",
)

#: All of them, by name.
SERVICE_PROBES: Final[dict[str, ServiceProbe]] = {each.name: each for each in (POSTGRES, MYSQL, REDIS)}


def service_probe_for(port: int) -> ServiceProbe | None:
    """The server that usually listens on this port."""
    return next((each for each in SERVICE_PROBES.values() if each.port == port), None)
