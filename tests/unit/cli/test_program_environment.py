"""What a program of ``exec`` finds in its environment."""

from __future__ import annotations

import pytest

from emissary_lib.cli.program_environment import Service, named, program_environment, service_of
from emissary_lib.cli.service_url import LocalPort
from emissary_lib.protocol.targets.allow_list import Target

DB = LocalPort(Target.parse("db.internal:5432"), "127.0.0.1", 41001)
MY = LocalPort(Target.parse("my.internal:3306"), "127.0.0.1", 41002)
CACHE = LocalPort(Target.parse("cache.internal:6379"), "127.0.0.1", 41003)
PLAIN = LocalPort(Target.parse("10.0.1.7:9000"), "127.0.0.1", 41004)

POSTGRES = {"PGHOST": "db.internal", "PGHOSTADDR": "127.0.0.1", "PGPORT": "41001"}


def environment(
    environ: dict[str, str],
    *ports: LocalPort,
    services: list[Service | None] | None = None,
    for_clients: bool = True,
) -> dict[str, str]:
    """The environment but for our own variables."""
    kinds = [service_of(port.target) for port in ports] if services is None else services
    env = program_environment(environ, ports, kinds, for_clients=for_clients)
    return {name: value for name, value in env.items() if not name.startswith("EMISSARY_")}


@pytest.mark.parametrize(
    ("ports", "services", "expected"),
    [
        ([DB], None, POSTGRES),
        ([MY], None, {"MYSQL_HOST": "127.0.0.1", "MYSQL_TCP_PORT": "41002"}),
        ([CACHE], None, {"REDIS_URL": "redis://127.0.0.1:41003"}),
        ([PLAIN], None, {}),
        (
            [PLAIN],
            [Service.POSTGRES],
            {"PGHOST": "10.0.1.7", "PGHOSTADDR": "127.0.0.1", "PGPORT": "41004"},
        ),
        ([DB], [Service.MYSQL], {"MYSQL_HOST": "127.0.0.1", "MYSQL_TCP_PORT": "41001"}),
        ([PLAIN], [Service.REDIS], {"REDIS_URL": "redis://127.0.0.1:41004"}),
        ([CACHE, DB], None, POSTGRES | {"REDIS_URL": "redis://127.0.0.1:41003"}),
        ([DB, PLAIN], [Service.POSTGRES, Service.POSTGRES], POSTGRES),  # the first of a kind
    ],
)
def test_the_port_or_who_is_asked_says_which_variables_are_set(
    ports: list[LocalPort], services: list[Service | None] | None, expected: dict[str, str]
) -> None:
    old = {"PGHOST": "localhost", "PGPORT": "1"} if "PGHOST" in expected else {}
    assert environment({"HOME": "/", **old}, *ports, services=services) == {"HOME": "/", **expected}


def test_addresses_are_there_by_number_and_by_name_and_the_first_also_alone() -> None:
    given = {"EMISSARY_HOST": "old", "EMISSARY_URL": "wss://x"}
    env = program_environment(given, [DB, PLAIN], [None, None], for_clients=False)
    assert env == {
        "EMISSARY_URL": "wss://x",
        "EMISSARY_HOST": "127.0.0.1",
        "EMISSARY_PORT": "41001",
        "EMISSARY_HOST_1": "127.0.0.1",
        "EMISSARY_PORT_1": "41001",
        "EMISSARY_HOST_2": "127.0.0.1",
        "EMISSARY_PORT_2": "41004",
        "EMISSARY_DB_INTERNAL_5432_HOST": "127.0.0.1",
        "EMISSARY_DB_INTERNAL_5432_PORT": "41001",
        "EMISSARY_10_0_1_7_9000_HOST": "127.0.0.1",
        "EMISSARY_10_0_1_7_9000_PORT": "41004",
    }


def test_of_two_targets_that_share_a_name_the_first_has_it() -> None:
    one = LocalPort(Target.parse("a-b:1"), "127.0.0.1", 41001)
    other = LocalPort(Target.parse("a.b:1"), "127.0.0.1", 41002)
    assert named(one.target) == named(other.target)
    assert program_environment({}, [one, other], [None, None])[named(one.target)[1]] == "41001"


@pytest.mark.parametrize(
    "name",
    ["EMISSARY_AUTH_KEYS", "EMISSARY_AUTH_KEYS_FILE", "EMISSARY_AUTH_KEYS_SECRET", "EMISSARY_ENV_FILE"],
)
@pytest.mark.parametrize("for_clients", [True, False])
def test_our_secrets_are_not_the_program_s(name: str, *, for_clients: bool) -> None:
    assert name not in program_environment({name: "x"}, [DB], [None], for_clients=for_clients)


def test_nothing_but_our_own_variables_is_set_if_that_is_not_wanted() -> None:
    given = {"PGHOST": "x", "DATABASE_URL": "postgres://db.internal/a", "REDIS_URL": "redis://cache.internal"}
    assert environment(given, DB, CACHE, for_clients=False) == given


def test_the_environment_that_was_given_stays_as_it_is() -> None:
    given = {"EMISSARY_AUTH_KEYS": "x", "PGHOSTADDR": "10.0.0.1", "PGSERVICE": "s"}
    copy = dict(given)
    program_environment(given, [DB], [Service.POSTGRES])
    assert given == copy


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://:pw@cache.internal:6379/2", "redis://:pw@127.0.0.1:41003/2"),
        ("rediss://u:pw@cache.internal/0?x=y", "rediss://u:pw@127.0.0.1:41003/0?x=y"),
        (
            "redis://:pw@localhost:6379/2",
            "redis://127.0.0.1:41003",
        ),  # another server's password is not shown to it
        ("unix:///run/redis.sock", "redis://127.0.0.1:41003"),
        ("", "redis://127.0.0.1:41003"),
    ],
)
def test_redis_url_keeps_password_and_database_of_the_same_server(url: str, expected: str) -> None:
    assert environment({"REDIS_URL": url}, CACHE)["REDIS_URL"] == expected


def test_database_url_is_rewritten_whatever_the_port_says_and_only_if_it_leads_to_a_target() -> None:
    odd = LocalPort(Target.parse("db.internal:9000"), "127.0.0.1", 41009)
    assert environment({"DATABASE_URL": "mysql://u:p@db.internal:9000/a"}, CACHE, odd)["DATABASE_URL"] == (
        "mysql://u:p@127.0.0.1:41009/a"
    )
    for other in ("postgres://localhost/a", "postgres://db.internal/a", "sqlite:///a", "not a URL", ""):
        assert environment({"DATABASE_URL": other}, odd)["DATABASE_URL"] == other
    assert "DATABASE_URL" not in environment({}, odd)


NAMED = "postgres://db.internal:41001/a?hostaddr=127.0.0.1"


@pytest.mark.parametrize(
    ("parameters", "environ", "kept"),
    [
        ("", {}, False),
        ("?sslmode=require", {}, False),
        ("?sslmode=verify-ca", {}, False),
        ("?sslmode=verify-full", {}, True),
        ("", {"PGSSLMODE": "verify-full"}, True),
        ("?sslmode=require", {"PGSSLMODE": "verify-full"}, False),
        ("?sslrootcert=system", {}, True),
        ("", {"PGSSLROOTCERT": "system"}, True),
        ("?sslmode=require", {"PGSSLROOTCERT": "system"}, False),
    ],
)
def test_database_url_keeps_the_name_where_libpq_is_to_verify_it(
    parameters: str, environ: dict[str, str], *, kept: bool
) -> None:
    url = environment({"DATABASE_URL": f"postgres://db.internal/a{parameters}", **environ}, DB)[
        "DATABASE_URL"
    ]
    assert ("hostaddr=127.0.0.1" in url) is kept
    assert ("//db.internal:41001/" in url) is kept
    assert ("//127.0.0.1:41001/" in url) is not kept


@pytest.mark.parametrize(
    ("given", "set_"),
    [
        ({"DATABASE_URL": "postgres://db.internal/a"}, True),
        ({"DATABASE_URL": "postgres://db.internal/a?sslmode=verify-full"}, True),
        ({"DATABASE_URL": "postgres://localhost/a"}, True),
        ({"DATABASE_URL": "postgres:///a"}, True),
        ({"DATABASE_URL": "mysql://other/a"}, True),
        ({"DATABASE_URL": "postgres://other/a"}, False),
        ({"DATABASE_URL": "postgres://db.internal,other/a"}, False),
        ({"PGSERVICE": "other"}, False),
    ],
)
def test_libpq_is_not_led_away_from_another_server_that_the_environment_names(
    given: dict[str, str], *, set_: bool
) -> None:
    env = environment({**given, "PGHOSTADDR": "10.0.0.1"}, DB)
    expected = ("db.internal", "127.0.0.1", "41001") if set_ else ("127.0.0.1", None, "41001")
    assert (env["PGHOST"], env.get("PGHOSTADDR"), env["PGPORT"]) == expected


@pytest.mark.parametrize(
    ("given", "expected"), [("3306", "41002"), ("tcp://10.0.0.1:3306", None), (None, None)]
)
def test_mysql_port_is_kept_in_step_where_an_application_has_it(
    given: str | None, expected: str | None
) -> None:
    environ = {} if given is None else {"MYSQL_PORT": given}
    assert environment(environ, MY).get("MYSQL_PORT") == (expected or given)
