"""How servers greet: enough to tell that the right one is there, and no more.

Nothing is logged in to, and nothing of the conversation is kept. Sources: PostgreSQL documentation, "Message
Flow", SSL Session Encryption, and "Error and Notice Message Fields"; MySQL Internals,
"Protocol::HandshakeV10" and "ERR_Packet"; Redis documentation, "RESP protocol specification".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from emissary_lib.doctor.report import Finding, failed, ok
from emissary_lib.exit_status import Exit

#: Longest text of a server's that is shown, in characters.
_SHOWN: Final = 120


@dataclass(frozen=True, slots=True)
class Greeting:
    """One way to greet.

    Attributes:
        name: As ``--greet`` has it.
        title: For people.
        port: Where such servers usually are.
        request: What we say first; empty if they do.
        read: What their bytes mean, or ``None`` if more are needed.
        silence: What it may mean that they say nothing.
    """

    name: str
    title: str
    port: int
    request: bytes
    read: Callable[[bytes], Finding | None]
    silence: str

    def judge(self, data: bytes, ended: bool) -> Finding | None:
        """What the bytes so far mean; never ``None`` once the target has ended its stream."""
        made = self.read(data)
        if made is not None:
            return made
        other = guess(data)
        if other is not None and other != self.title:
            return _odd(f"{other} answers, not {self.title}", "check the port, or say --greet")
        if not ended:
            return None
        if data:
            return _odd(f"it ended in the middle of {self.title}'s greeting", "see the server's own log")
        return _odd(f"it hung up without a word of {self.title}", self.silence)


def _odd(fact: str, remedy: str) -> Finding:
    return failed(Exit.GREETING, fact, remedy)


def _text(data: bytes) -> str:
    shown = "".join(each if each.isprintable() else " " for each in data.decode("utf-8", "replace"))
    return shown.strip()[:_SHOWN]


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
    return _odd(
        f"{guess(data) or 'something else'} answers, not PostgreSQL", "check the port, or say --greet"
    )


def _postgres_error(data: bytes) -> Finding | None:
    if len(data) < 5:
        return None
    length = int.from_bytes(data[1:5], "big")
    if not 4 < length < 65_536:
        return _odd("something else answers, not PostgreSQL", "check the port, or say --greet")
    if len(data) < 1 + length:
        return None
    fields = {field[:1]: field[1:] for field in data[5 : 1 + length].split(b"\0") if field}
    said = _text(fields.get(b"M", b"")) or "an error without a text"
    return _odd(f"PostgreSQL refuses: {said}", "it is reached, and turns us away: see its own log")


# -- MySQL and MariaDB: they speak first --------------------------------------------------------

#: MariaDB puts this before its version, for old replicas of MySQL.
_MARIADB_PREFIX: Final = "5.5.5-"


def read_mysql(data: bytes) -> Finding | None:
    """The initial handshake, or an error in its place."""
    if len(data) < 5:
        return None
    length = int.from_bytes(data[:3], "little")
    if not 4 < length < 4096 or data[3] != 0 or data[4] not in (9, 10, 0xFF):
        return _odd(
            f"{guess(data) or 'something else'} answers, not MySQL or MariaDB",
            "check the port, or say --greet",
        )
    if len(data) < 4 + length:
        return None
    payload = data[4 : 4 + length]
    if payload[0] == 0xFF:
        said = f"{_text(payload[3:])} (error {int.from_bytes(payload[1:3], 'little')})"
        return _odd(f"the server refuses: {said}", "it is reached, and turns us away: see its own log")
    version = _text(payload[1:].partition(b"\0")[0]).removeprefix(_MARIADB_PREFIX)
    name = "MariaDB" if "mariadb" in version.lower() else "MySQL"
    return ok(f"{name} {version} answers")


# -- Redis: PING --------------------------------------------------------------------------------


def read_redis(data: bytes) -> Finding | None:
    """The answer to PING."""
    if data[:1] not in (b"", b"+", b"-"):
        return _odd(f"{guess(data) or 'something else'} answers, not Redis", "check the port, or say --greet")
    line, end, _rest = data.partition(b"\r\n")
    if not end:
        return None
    if line == b"+PONG":
        return ok("Redis answers, and asks for no password")
    if line.startswith((b"-NOAUTH", b"-NOPERM", b"-WRONGPASS")):
        return ok("Redis answers, and asks for a password")
    return _odd(
        f"Redis refuses: {_text(line[1:])}", "it is reached, and turns us away: see its configuration"
    )


def guess(data: bytes) -> str | None:
    """Who speaks like this; ``None`` if it is not plain."""
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


POSTGRES: Final = Greeting(
    "postgres",
    "PostgreSQL",
    5432,
    bytes.fromhex("00 00 00 08 04 d2 16 2f"),  # SSLRequest: Int32(8) Int32(80877103)
    read_postgres,
    "a pooler or proxy before the database may have no database to hand on to: see its log",
)
MYSQL: Final = Greeting(
    "mysql",
    "MySQL or MariaDB",
    3306,
    b"",
    read_mysql,
    "the server may be starting, or block this host after too many broken connections (FLUSH HOSTS)",
)
REDIS: Final = Greeting(
    "redis",
    "Redis",
    6379,
    b"PING\r\n",
    read_redis,
    "a server that wants TLS (ElastiCache: in-transit encryption) hangs up, or stays silent, on plain text",
)

#: All of them, by name.
GREETINGS: Final[dict[str, Greeting]] = {each.name: each for each in (POSTGRES, MYSQL, REDIS)}


def greeting_for(port: int) -> Greeting | None:
    """Who usually greets on this port."""
    return next((each for each in GREETINGS.values() if each.port == port), None)
