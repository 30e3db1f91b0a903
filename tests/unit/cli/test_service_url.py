"""URLs of databases through a local port: host and port change where they lead to a target, and no more."""

from __future__ import annotations

import urllib.parse

import pytest
import sqlalchemy
from hypothesis import given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict

from emissary_lib.cli.service_url import LocalPort, ServiceUrl
from emissary_lib.protocol.targets.allow_list import Target


def port(target: str, number: int) -> LocalPort:
    return LocalPort(Target.parse(target), "127.0.0.1", number)


DB = port("db.internal:5432", 41001)
PORTS = [
    DB,
    port("db2.internal:5433", 41002),
    port("my.internal:3306", 41003),
    port("cache.internal:6379", 41004),
    port("[fd00::1]:5432", 41005),
    port("10.0.1.7:5432", 41006),
]


def through(url: str, *, keep_name: bool = False) -> str | None:
    return ServiceUrl(url).through(PORTS, keep_name=keep_name)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://db.internal:5432/app", "postgresql://127.0.0.1:41001/app"),
        ("postgres://u:p@db.internal/app", "postgres://u:p@127.0.0.1:41001/app"),
        ("postgres://u:p@db.internal:/app", "postgres://u:p@127.0.0.1:41001/app"),
        ("POSTGRES://DB.Internal.", "POSTGRES://127.0.0.1:41001"),
        ("postgres://u:p%40%2F@db%2Einternal/app#x", "postgres://u:p%40%2F@127.0.0.1:41001/app#x"),
        ("postgres://u:a@b:c@db.internal/app", "postgres://u:a@b:c@127.0.0.1:41001/app"),
        (
            "postgresql+psycopg://u@db.internal/a?x=1&y=%20",
            "postgresql+psycopg://u@127.0.0.1:41001/a?x=1&y=%20",
        ),
        ("postgresql+asyncpg://db.internal/a", "postgresql+asyncpg://127.0.0.1:41001/a"),
        ("postgis://db.internal/a?", "postgis://127.0.0.1:41001/a?"),
        ("jdbc:postgresql://db.internal/a?user=u", "jdbc:postgresql://127.0.0.1:41001/a?user=u"),
        ("mysql://u:p@my.internal/app?charset=utf8mb4", "mysql://u:p@127.0.0.1:41003/app?charset=utf8mb4"),
        ("mysql+pymysql://my.internal:3306/app", "mysql+pymysql://127.0.0.1:41003/app"),
        ("mysql2://my.internal/app", "mysql2://127.0.0.1:41003/app"),
        ("mariadb+mariadbconnector://my.internal", "mariadb+mariadbconnector://127.0.0.1:41003"),
        ("redis://:secret@cache.internal/2", "redis://:secret@127.0.0.1:41004/2"),
        ("rediss://u:p@cache.internal:6379/0?x=1", "rediss://u:p@127.0.0.1:41004/0?x=1"),
        ("unknown://db.internal:5432/a", "unknown://127.0.0.1:41001/a"),
        ("postgres://[fd00::1]/a", "postgres://127.0.0.1:41005/a"),
        ("postgres://[FD00:0::1]:5432/a", "postgres://127.0.0.1:41005/a"),
        ("postgres://10.0.1.7/a", "postgres://127.0.0.1:41006/a"),
        # Several hosts: those that lead to a target.
        ("postgres://u@db.internal,db2.internal:5433/a", "postgres://u@127.0.0.1:41001,127.0.0.1:41002/a"),
        ("postgres://u@other:1,db.internal,[::2]/a", "postgres://u@other:1,127.0.0.1:41001,[::2]/a"),
        # By libpq's parameters, which go before the authority.
        ("postgres:///a?host=db.internal", "postgres:///a?host=127.0.0.1&port=41001"),
        ("postgres:///a?host=db.internal&port=5432&x=1", "postgres:///a?host=127.0.0.1&port=41001&x=1"),
        ("postgres://:5432/a?host=db.internal", "postgres://:5432/a?host=127.0.0.1&port=41001"),
        ("postgres://other:9/a?host=db.internal&port=5432", "postgres://other:9/a?host=127.0.0.1&port=41001"),
        ("postgres://db.internal/a?port=5432", "postgres://127.0.0.1/a?port=41001"),
        ("postgres:///a?host=fd00%3A%3A1", "postgres:///a?host=127.0.0.1&port=41005"),
        (
            "postgres:///a?host=db.internal,other&port=5432,7",
            "postgres:///a?host=127.0.0.1,other&port=41001,7",
        ),
        ("postgres:///a?host=other%2Cdb.internal", "postgres:///a?host=other,127.0.0.1&port=5432,41001"),
        (
            "postgres:///a?host=other,db.internal&port=5432",
            "postgres:///a?host=other,127.0.0.1&port=5432,41001",
        ),
        # SQLAlchemy's way to name several.
        (
            "postgresql+psycopg2:///a?host=db.internal:5432&host=other:9",
            "postgresql+psycopg2:///a?host=127.0.0.1:41001&host=other:9",
        ),
        # An address of its own stands for the host, and gives way to ours.
        (
            "postgres://db.internal/a?hostaddr=10.9.9.9",
            "postgres://db.internal:41001/a?hostaddr=127.0.0.1",
        ),
        ("postgres://name/a?hostaddr=10.0.1.7", "postgres://name:41006/a?hostaddr=127.0.0.1"),
    ],
)
def test_host_and_port_are_replaced_and_all_else_is_kept(url: str, expected: str) -> None:
    assert through(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "postgres://localhost/a",
        "postgres://db.internal:5433/a",
        "postgres://db.internal:99999/a",
        "postgres://db.internal:port/a",
        "postgres://db.internal.example/a",
        "postgres://u@other/db.internal:5432",
        "postgres://db.internal:5432@other/a",
        "postgres://other/a?x=db.internal:5432",
        "postgres:///a",
        "postgres:///a?host=/var/run/postgresql",
        "postgres://%2Fvar%2Frun/a",
        "postgres://db.internal/a?port=5433",
        "postgres://db.internal/a?host=other",
        "mysql://db.internal/a",
        "unknown://db.internal/a",
        "sqlite:///db.internal:5432",
        "postgres://[fd00::1/a",
        "postgres://",
        "postgres://,,,/",
        "postgres://:/?host=&port=&hostaddr=",
    ],
)
def test_a_url_that_leads_elsewhere_is_none_of_ours(url: str) -> None:
    assert through(url) is None
    assert through(url, keep_name=True) is None


@pytest.mark.parametrize(
    "text", ["", "db.internal:5432", "host=db.internal port=5432", "sqlite:db", "://x", "1://x"]
)
def test_what_is_no_url_with_an_authority_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no URL"):
        ServiceUrl(text)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (
            "postgres://u:p@db.internal/a?sslmode=verify-full",
            "postgres://u:p@db.internal:41001/a?sslmode=verify-full&hostaddr=127.0.0.1",
        ),
        ("postgresql+psycopg://db.internal", "postgresql+psycopg://db.internal:41001?hostaddr=127.0.0.1"),
        (
            "postgres:///a?host=db.internal&sslmode=verify-full",
            "postgres:///a?host=db.internal&sslmode=verify-full&port=41001&hostaddr=127.0.0.1",
        ),
        (
            "postgres://db.internal,other:7/a",
            "postgres://db.internal:41001,other:7/a?hostaddr=127.0.0.1,",
        ),
        ("postgres://[fd00::1]/a", "postgres://[fd00::1]:41005/a?hostaddr=127.0.0.1"),
        # Who knows no hostaddr: the name cannot be verified, and the driver says so.
        ("postgresql+asyncpg://db.internal/a", "postgresql+asyncpg://127.0.0.1:41001/a"),
        ("jdbc:postgresql://db.internal/a", "jdbc:postgresql://127.0.0.1:41001/a"),
        ("mysql://my.internal/a", "mysql://127.0.0.1:41003/a"),
    ],
)
def test_a_name_that_is_to_be_verified_stays_where_libpq_is_told_the_address(url: str, expected: str) -> None:
    assert through(url, keep_name=True) == expected


@pytest.mark.parametrize(
    ("url", "misled"),
    [
        ("postgres://other/a", True),
        ("postgres://10.0.0.1/a", True),
        ("postgres:///a?host=other", True),
        ("postgres://127.0.0.1:41001,other/a", True),
        ("postgres://127.0.0.1:41001/a", False),
        ("postgres://localhost/a", False),
        ("postgres://[::1]/a", False),
        ("postgres:///a", False),
        ("postgres:///a?host=/var/run/postgresql", False),
        ("postgres://other/a?hostaddr=10.0.0.1", False),
        ("postgresql+asyncpg://other/a", False),
        ("jdbc:postgresql://other/a", False),
        ("mysql://other/a", False),
    ],
)
def test_pghostaddr_would_mislead_libpq_where_another_server_is_named(url: str, *, misled: bool) -> None:
    assert ServiceUrl(url).misled_by_hostaddr is misled


WORD = st.text("abcXYZ019-_.~%!$'()*;=", min_size=1, max_size=8).filter(lambda text: "%" not in text)
HOSTS = st.one_of(
    st.just("db.internal"), st.sampled_from(["other.example", "localhost", "10.2.3.4", "[fd00::2]"])
)


@st.composite
def urls(draw: st.DrawFn) -> tuple[str, list[str]]:
    """A URL, and the hosts that it names."""
    hosts = draw(st.lists(HOSTS, min_size=1, max_size=3))
    numbers = [draw(st.sampled_from(["", ":5432"])) for _ in hosts]
    user = draw(st.sampled_from(["", "u@", "u:p@", "u:p%40%2F%3F@"]))
    scheme = draw(st.sampled_from(["postgres", "postgresql", "postgresql+psycopg"]))
    names = draw(st.lists(WORD.map(lambda text: "x" + text), max_size=3))
    query = "?" + "&".join(f"{name.replace('=', '')}=1" for name in names) if names else ""
    path = draw(st.sampled_from(["", "/", "/app"]))
    authority = ",".join(host + number for host, number in zip(hosts, numbers, strict=True))
    return f"{scheme}://{user}{authority}{path}{query}", hosts


@given(urls())
def test_whatever_a_url_names_only_the_target_changes_and_libpq_reads_the_same_of_the_rest(
    drawn: tuple[str, list[str]],
) -> None:
    url, hosts = drawn
    got = ServiceUrl(url).through([DB], keep_name=False)
    if "db.internal" not in hosts:
        assert got is None
        return
    assert got is not None
    assert ServiceUrl(got).through([DB], keep_name=False) is None  # nothing is left of it
    before, after = url.partition("://")[2], got.partition("://")[2]
    old, new = (re_authority(text) for text in (before, after))
    assert before.replace(old, "", 1) == after.replace(new, "", 1)
    for host, was, now in zip(hosts, old.split(","), new.split(","), strict=True):
        assert now == ("127.0.0.1:41001" if host == "db.internal" else was)


def re_authority(text: str) -> str:
    """The hosts of what follows ``://``."""
    for mark in "/?":
        text = text.partition(mark)[0]
    return text.rpartition("@")[2]


@given(urls(), st.booleans())
def test_libpq_connects_to_the_local_port_and_knows_the_name_if_that_is_kept(
    drawn: tuple[str, list[str]], keep_name: bool
) -> None:
    url, hosts = drawn
    url = url.replace("+psycopg", "").partition("?")[0]
    got = ServiceUrl(url).through([DB], keep_name=keep_name)
    if got is None:
        return
    told = conninfo_to_dict(got)
    was = conninfo_to_dict(url)
    ours = ("host", "port", "hostaddr")
    assert {k: v for k, v in told.items() if k not in ours} == {k: v for k, v in was.items() if k not in ours}
    ports = str(told["port"]).split(",")
    names = str(told["host"]).split(",")
    addresses = str(told["hostaddr"]).split(",") if keep_name else names
    for number, host in enumerate(hosts):
        if host == "db.internal":
            assert (addresses[number], ports[number]) == ("127.0.0.1", "41001")
            assert names[number] == ("db.internal" if keep_name else "127.0.0.1")


@given(st.text("abd.:/?#@[],=&%+2C \n", max_size=40), st.booleans())
def test_any_text_is_either_no_url_or_read(text: str, keep_name: bool) -> None:
    try:
        url = ServiceUrl(text)
    except ValueError:
        return
    got = url.through(PORTS, keep_name=keep_name)
    assert got is None or got != text
    assert url.misled_by_hostaddr in (True, False)


def test_sqlalchemy_reads_what_is_written() -> None:
    url = "postgresql+psycopg://app:p%40ss@db.internal/app?sslmode=verify-full&application_name=a%20b"
    got = sqlalchemy.make_url(str(through(url, keep_name=True)))
    assert (got.host, got.port, got.password, got.query["hostaddr"]) == (
        "db.internal",
        41001,
        "p@ss",
        "127.0.0.1",
    )
    assert got.query["application_name"] == "a b"
    assert urllib.parse.urlsplit(str(through(url))).port == 41001
