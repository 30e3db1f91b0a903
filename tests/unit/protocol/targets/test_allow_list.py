"""targets: what may be dialled, asked before DNS and after it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from emissary_lib.protocol.errors import ConfigError
from emissary_lib.protocol.targets.allow_list import AllowList, Rule, Target, TargetError


def allow(*rules: tuple[str, Any]) -> AllowList:
    return AllowList.parse(json.dumps([{"host": host, "port": port} for host, port in rules]))


@pytest.mark.parametrize(
    ("given", "host", "port", "text"),
    [
        ("db.internal:5432", "db.internal", 5432, "db.internal:5432"),
        ("DB.INTERNAL.:1", "db.internal", 1, "db.internal:1"),
        ("127.1:65535", "127.0.0.1", 65535, "127.0.0.1:65535"),
        ("[FD00::5]:3306", "fd00::5", 3306, "[fd00::5]:3306"),
        (("fd00::5", 3306), "fd00::5", 3306, "[fd00::5]:3306"),
        (("db", 5432), "db", 5432, "db:5432"),
    ],
)
def test_a_target_is_read_and_written(given: str | tuple[str, int], host: str, port: int, text: str) -> None:
    target = Target.parse(given)
    assert target == Target(host, port)
    assert (target.host, target.port, str(target)) == (host, port, text)
    assert Target.parse(text) == target


NO_TARGETS: list[Any] = [
    None, 5, b"db:1", ["db", 1], {"db": 1}, (), ("db",), ("db", 1, 2), ("db", True), ("db", "1"), ("db", 1.0),
    (None, 1), (b"db", 1), (5, 1),
]  # fmt: skip


@pytest.mark.parametrize("given", NO_TARGETS, ids=repr)
def test_what_is_of_another_type_is_no_target(given: Any) -> None:
    with pytest.raises(TargetError, match=r"write host:port|host is not a text|is not a number from 1 to"):
        Target.parse(given)


@pytest.mark.parametrize(("host", "port"), [("db", True), ("db", None), (None, 1), (b"db", 1)])
def test_a_target_takes_a_text_and_a_whole_number(host: Any, port: Any) -> None:
    with pytest.raises(TargetError):
        Target(host, port)


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ("", "has no port"),
        ("db.internal", "has no port; write host:port"),
        ("[::1]", "has no port"),
        ("::1:5432", r"ambiguous; write an IPv6 address in brackets: \[::1\]:5432"),
        ("postgres://me:secret@db:5432/app", "^a URL is no target; write its host and port alone"),
        ("https://db.internal", "^a URL is no target"),
        (":5432", "host is empty"),
        ("db:", "port '' is not a number from 1 to 65535"),
        ("db:0", "port '0'"),
        ("db:70000", "port '70000'"),
        ("db:+1", "port"),
        ("db: 1", "port"),
        ("db:\u0661", "port"),
        ("d b:1", "holds ' '"),
        (("db", 0), "port 0 is not a number"),
        (("db", 65536), "port 65536"),
        (("db", "5432"), "port '5432'"),
        (("", 1), "host is empty"),
    ],
)
def test_a_bad_target_says_what_is_wrong(given: Any, fault: str) -> None:
    with pytest.raises(TargetError, match=fault):
        Target.parse(given)


@pytest.mark.parametrize(
    ("rule", "port", "admitted", "refused"),
    [
        (
            "db.internal",
            5432,
            ["db.internal:5432", "DB.Internal.:5432"],
            ["db.internal:5433", "x.db.internal:5432"],
        ),
        ("10.0.0.5", 5432, ["10.0.0.5:5432", "[::ffff:10.0.0.5]:5432", "167772165:5432"], ["10.0.0.6:5432"]),
        ("10.0.0.0/16", 1, ["10.0.0.5:1", "10.0.255.255:1"], ["10.1.0.0:1", "db.internal:1", "[fd00::1]:1"]),
        ("fd00::/64", 1, ["[fd00::1]:1"], ["[fd00:0:0:1::1]:1", "10.0.0.1:1"]),
        ("::ffff:10.0.0.0/112", 1, ["10.0.0.5:1"], ["10.1.0.0:1"]),
        ("*.internal", 1, ["db.internal:1", "a.b.INTERNAL.:1"], ["internal:1", "xinternal:1", "10.0.0.5:1"]),
        ("db", "10-12", ["db:10", "db:11", "db:12"], ["db:9", "db:13"]),
        ("db", [10, "20-21", "30"], ["db:10", "db:20", "db:21", "db:30"], ["db:11", "db:22"]),
        ("[fd00::5]", 1, ["[fd00::5]:1"], ["[fd00::6]:1"]),
    ],
)
def test_rules_admit_no_more_than_they_say(
    rule: str, port: Any, admitted: list[str], refused: list[str]
) -> None:
    listed = allow((rule, port))
    assert [text for text in admitted if not listed.permits(Target.parse(text))] == []
    assert [text for text in refused if listed.permits(Target.parse(text))] == []


def test_a_suffix_never_matches_the_end_of_an_address() -> None:
    assert not Rule("*.5", ((1, 1),)).matches(Target("10.0.0.5", 1))


def test_an_empty_list_permits_nothing() -> None:
    assert not AllowList.parse("[]").permits(Target("db", 1))
    assert not AllowList().permits(Target("db", 1))


DANGEROUS = [
    "127.0.0.1",
    "127.1",
    "::1",
    "0.0.0.0",
    "::ffff:127.0.0.1",
    "169.254.169.254",
    "169.254.170.2",
    "64:ff9b::a9fe:a9fe",
    "fd00:ec2::254",
    "fe80::1",
    "224.0.0.1",
]


@pytest.mark.parametrize("host", DANGEROUS)
def test_a_network_rule_never_admits_a_dangerous_address(host: str) -> None:
    every = allow(("0.0.0.0/0", "1-65535"), ("::/0", "1-65535"))
    assert every.permits(Target("8.8.8.8", 1))
    assert not every.permits(Target(host, 1))
    assert not every.permits_address(Target(host, 1), host)
    assert allow((host, 1)).permits(Target(host, 1))
    assert not allow((host, 1)).permits(Target(host, 2))


@pytest.mark.parametrize("address", [*DANGEROUS[2:], "127.0.0.1", "fe80::1%eth0"])
def test_a_listed_name_must_not_lead_to_a_dangerous_address(address: str) -> None:
    listed = allow(("db.internal", 1), ("*.internal", 1), ("0.0.0.0/0", 1), ("::/0", 1))
    assert listed.permits_address(Target("db.internal", 1), "10.0.0.5")
    assert not listed.permits_address(Target("db.internal", 1), address)


def test_a_name_may_lead_to_a_dangerous_address_that_is_listed_itself() -> None:
    listed = allow(("db.internal", [1, 2]), ("127.0.0.1", 1))
    assert listed.permits_address(Target("db.internal", 1), "127.0.0.1")
    assert listed.permits_address(Target("db.internal", 1), "::ffff:127.0.0.1")
    assert not listed.permits_address(Target("db.internal", 2), "127.0.0.1")
    assert not listed.permits_address(Target("db.internal", 1), "127.0.0.2")


@pytest.mark.parametrize("name", ["localhost", "db.localhost"])
def test_localhost_listed_by_name_may_be_loopback_and_nothing_worse(name: str) -> None:
    target = Target(name, 1)
    assert allow((name, 1)).permits_address(target, "127.0.0.1")
    assert allow((name, 1)).permits_address(target, "::1")
    assert not allow((name, 1)).permits_address(target, "169.254.169.254")
    assert not allow((name, 2)).permits_address(target, "127.0.0.1")
    assert not allow(("*.localhost", 1)).permits_address(Target("x.localhost", 1), "127.0.0.1")


def test_after_dns_the_name_itself_is_judged_again() -> None:
    assert not allow(("10.0.0.0/8", 1)).permits_address(Target("db.internal", 1), "10.0.0.5")


def test_a_literal_target_is_dialled_at_its_own_address_only() -> None:
    listed = allow(("10.0.0.0/8", 1))
    assert listed.permits_address(Target("10.0.0.5", 1), "10.0.0.5")
    assert not listed.permits_address(Target("10.0.0.5", 1), "10.0.0.6")


@pytest.mark.parametrize("address", ["", "db.internal", "10.0.0.5 "])
def test_what_is_no_address_is_not_dialled(address: str) -> None:
    assert not allow(("db", 1)).permits_address(Target("db", 1), address)


def test_a_single_object_is_a_list_of_one() -> None:
    assert AllowList.parse('{"host": "db", "port": 1}') == allow(("db", 1))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("3", "not a list"),
        ("[3]", "number 1: not an object"),
        ('[{"port": 1}]', '"host" is not a text'),
        ('[{"host": "db"}]', '"port" None is not a number'),
        ('[{"host": "db", "port": 0}]', '"port" 0 is not'),
        ('[{"host": "db", "port": 65536}]', '"port" 65536 is not'),
        ('[{"host": "db", "port": true}]', '"port" True is not'),
        ('[{"host": "db", "port": 1.5}]', '"port" 1.5 is not'),
        ('[{"host": "db", "port": []}]', "empty list"),
        ('[{"host": "db", "port": "5-1"}]', "runs backwards"),
        ('[{"host": "db", "port": "1-"}]', "port '' is not a number"),
        ('[{"host": "db", "port": "x"}]', "port 'x' is not a number"),
        ('[{"host": "10.0.0.1/16", "port": 1}]', "is not a network"),
        ('[{"host": "db/16", "port": 1}]', "is not a network"),
        ('[{"host": "*", "port": 1}]', 'is not "*." and a name'),
        ('[{"host": "*.", "port": 1}]', 'is not "*." and a name'),
        ('[{"host": "*db", "port": 1}]', 'is not "*." and a name'),
        ('[{"host": "*.0.0.5", "port": 1}]', "write a CIDR"),
        ('[{"host": "a.*.b", "port": 1}]', "holds '*'"),
        ('[{"host": "db", "port": 1, "ports": 2}]', "unknown member 'ports'"),
    ],
)
def test_a_bad_allow_list_says_what_is_wrong(text: str, fault: str) -> None:
    with pytest.raises(ConfigError) as caught:
        AllowList.parse(text)
    assert fault in str(caught.value)


def test_all_faults_come_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        AllowList.parse('[{"host": "a b", "port": 0}, {"host": "db", "port": 1}, {"host": "*", "port": 1}]')
    assert len(caught.value.faults) == 3
    assert [fault[:23] for fault in caught.value.faults] == [f"allowed target number {n}" for n in (1, 1, 3)]


def test_a_rule_reads_as_it_is_written() -> None:
    listed = allow(("DB.internal", 5432), ("*.x", "1-2"), ("10.0.0.0/16", [3, "4-5"]), ("fd00::/8", 6))
    assert " ".join(map(str, listed.rules)) == "db.internal:5432 *.x:1-2 10.0.0.0/16:3,4-5 [fd00::/8]:6"
