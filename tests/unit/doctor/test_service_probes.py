"""How servers service: whole, a byte at a time, refusing, and being somebody else.

The answers of MariaDB and Redis were recorded from Debian's mariadb-server 10.11.18 and redis-server
7.0.15, the one of PostgreSQL from its documentation ("Message Formats", ErrorResponse).
"""

from __future__ import annotations

import struct

import pytest

from emissary_lib.doctor.checks import Finding, Status
from emissary_lib.doctor.service_probes import (
    MYSQL,
    POSTGRES,
    REDIS,
    SERVICE_PROBES,
    ServiceProbe,
    guess_server,
    service_probe_for,
)
from emissary_lib.exit_status import Exit

MARIADB_SAYS = (
    b"d\x00\x00\x00\n5.5.5-10.11.18-MariaDB-0+deb12u1\x00\x03\x00\x00\x00>`K5g&(5\x00\xfe\xf7\x08\x02\x00\xff\x81"
    b"\x15\x00\x00\x00\x00\x00\x00\x1d\x00\x00\x00r^`G#vMZ_OKi\x00mysql_native_password\x00"
)
#: Protocol::HandshakeV10 as MySQL's documentation lays it out, up to the first part of the scramble.
_MYSQL_BODY = b"\x0a8.4.3\x00" + struct.pack("<I", 11) + b"abcdefgh\x00" + b"\xff\xff\xff\x02\x00" + bytes(20)
MYSQL_SAYS = len(_MYSQL_BODY).to_bytes(3, "little") + b"\x00" + _MYSQL_BODY


def mysql_error(number: int, text: bytes) -> bytes:
    body = b"\xff" + struct.pack("<H", number) + text
    return len(body).to_bytes(3, "little") + b"\x00" + body


def postgres_error(text: bytes) -> bytes:
    fields = b"SFATAL\x00VFATAL\x00C53300\x00M" + text + b"\x00\x00"
    return b"E" + struct.pack(">I", 4 + len(fields)) + fields


def judged(probe: ServiceProbe, data: bytes) -> Finding:
    """The verdict, which is the same whole, a byte at a time, and with more behind it."""
    whole = probe.judge(data, False)
    assert whole is not None
    for cut in range(len(data)):
        early = probe.judge(data[:cut], False)
        if early is not None:
            assert early == whole  # may know sooner, never otherwise
            break
    assert probe.judge(data + b"trailing", False) == whole
    return whole


@pytest.mark.parametrize(
    ("probe", "data", "fact"),
    [
        (POSTGRES, b"S", "PostgreSQL answers, and offers TLS"),
        (POSTGRES, b"N", "PostgreSQL answers, without TLS"),
        (MYSQL, MARIADB_SAYS, "MariaDB 10.11.18-MariaDB-0+deb12u1 answers"),
        (MYSQL, MYSQL_SAYS, "MySQL 8.4.3 answers"),
        (REDIS, b"+PONG\r\n", "Redis answers, and asks for no password"),
        (REDIS, b"-NOAUTH Authentication required.\r\n", "Redis answers, and asks for a password"),
    ],
)
def test_the_right_server_is_recognised(probe: ServiceProbe, data: bytes, fact: str) -> None:
    found = judged(probe, data)
    assert (found.status, found.fact) == (Status.OK, fact)


@pytest.mark.parametrize(
    ("probe", "data", "fact"),
    [
        (POSTGRES, postgres_error(b"sorry, too many clients already"), "PostgreSQL refuses: sorry, too many"),
        (MYSQL, mysql_error(1040, b"Too many connections"), "Too many connections (error 1040)"),
        (MYSQL, mysql_error(1130, b"Host '10.0.0.1' is not allowed"), "(error 1130)"),
        (REDIS, b"-DENIED Redis is running in protected mode\r\n", "Redis refuses: DENIED Redis is running"),
    ],
)
def test_a_server_that_turns_us_away_is_quoted(probe: ServiceProbe, data: bytes, fact: str) -> None:
    found = judged(probe, data)
    assert (found.status, found.exit) == (Status.FAILED, Exit.SERVICE)
    assert fact in found.fact
    assert "but refuses" in found.hint


@pytest.mark.parametrize(
    ("probe", "data", "who"),
    [
        (POSTGRES, b"HTTP/1.1 400 Bad Request\r\n\r\n", "a web server answers, not PostgreSQL"),
        (POSTGRES, MARIADB_SAYS, "MySQL or MariaDB answers, not PostgreSQL"),
        (POSTGRES, b"-ERR unknown command\r\n", "Redis answers, not PostgreSQL"),
        (MYSQL, b"SSH-2.0-OpenSSH_9.6\r\n", "an SSH server answers, not MySQL or MariaDB"),
        (MYSQL, b"220 mail.example ESMTP\r\n", "a mail or FTP server answers, not MySQL"),
        (REDIS, b"HTTP/1.1 400 Bad Request\r\n\r\n", "a web server answers, not Redis"),
        (REDIS, b"\x15\x03\x01\x00\x02\x02\x46", "a TLS server answers, not Redis"),
        (REDIS, MARIADB_SAYS, "answers, not Redis"),
        (POSTGRES, b"hello", "something else answers, not PostgreSQL"),
        (POSTGRES, b"E\x00\x00\x00\x00\x00", "something else answers, not PostgreSQL"),
        (MYSQL, b"hello", "something else answers, not MySQL"),
    ],
)
def test_another_server_is_named_if_it_is_known(probe: ServiceProbe, data: bytes, who: str) -> None:
    found = probe.judge(data, False)
    assert found is not None
    assert found.exit is Exit.SERVICE
    assert who in found.fact
    assert "--service" in found.hint


@pytest.mark.parametrize("probe", SERVICE_PROBES.values(), ids=lambda each: each.name)
def test_a_hang_up_before_the_first_byte_and_in_the_middle_are_told_apart(probe: ServiceProbe) -> None:
    at_once = probe.judge(b"", True)
    assert at_once is not None
    assert "closed the connection without an answer" in at_once.fact
    assert at_once.hint == probe.silence
    part = {"postgres": b"E\x00", "mysql": b"\x10\x00\x00\x00\x0a8", "redis": b"+PO"}[probe.name]
    assert probe.judge(part, False) is None
    later = probe.judge(part, True)
    assert later is not None
    assert "in the middle" in later.fact


def test_what_a_server_says_is_shown_short_and_printable() -> None:
    found = POSTGRES.judge(postgres_error(b"\x1b[31m" + b"x" * 500), False)
    assert found is not None
    assert "\x1b" not in found.fact
    assert len(found.fact) < 160


@pytest.mark.parametrize(("port", "name"), [(5432, "postgres"), (3306, "mysql"), (6379, "redis")])
def test_the_usual_port_tells_the_protocol(port: int, name: str) -> None:
    assert service_probe_for(port) is SERVICE_PROBES[name]


def test_another_port_tells_nothing() -> None:
    assert service_probe_for(1433) is None
    assert guess_server(b"") is None
