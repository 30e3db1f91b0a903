"""Names to addresses: which server is asked, in which order, and what is never asked."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from functions.relay.resolver import Resolver, resolver, system_resolver


class Servers:
    """Name servers with fixed answers; keeps what they are asked."""

    def __init__(self, **answers: Sequence[str]) -> None:
        self.asked: list[tuple[str, str]] = []
        self._answers = answers

    def __call__(self, server: str) -> Resolver:
        def resolve(host: str) -> Sequence[str]:
            self.asked.append((server, host))
            return self._answers[server]

        return resolve


def test_servers_are_asked_in_order_until_one_answers() -> None:
    servers = Servers(first=(), second=("10.0.0.7",), third=("10.0.0.8",))
    resolve = resolver(["first", "second", "third"], servers)
    assert resolve("db.internal") == ("10.0.0.7",)
    assert servers.asked == [("first", "db.internal"), ("second", "db.internal")]


def test_system_is_asked_when_no_server_answers() -> None:
    assert "127.0.0.1" in resolver(["first"], Servers(first=()))("localhost")


@pytest.mark.parametrize("address", ["10.1.2.3", "2001:db8::1"])
def test_literal_address_is_its_own_answer_and_no_server_hears_of_it(address: str) -> None:
    servers = Servers(first=("10.6.6.6",))
    assert tuple(resolver(["first"], servers)(address)) == (address,)
    assert servers.asked == []


def test_without_servers_the_system_is_asked() -> None:
    assert "127.0.0.1" in resolver([])("localhost")


@pytest.mark.parametrize("host", ["no-such-name.invalid", "a" * 64 + ".invalid", "bad..name", "\udcff"])
def test_unresolvable_name_has_no_address(host: str) -> None:
    assert tuple(system_resolver(host)) == ()


def test_name_server_that_does_not_listen_is_passed_over() -> None:
    assert "127.0.0.1" in resolver(["127.255.255.254"])("localhost")
