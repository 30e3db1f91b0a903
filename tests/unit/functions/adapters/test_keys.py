"""Keys from a secret: how long they are remembered, when they are fetched again, and what an outage does."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from emissary_lib.protocol.auth.keys import Key, KeyRing, format_keys
from functions.common.adapters.keys import (
    LOOK_INTERVAL,
    MAX_AGE,
    MAX_STALE,
    PROVEN_INTERVAL,
    RETRY_INTERVAL,
    STALE_INTERVAL,
    EnvironmentKeys,
    Secret,
    SecretKeys,
)
from functions.common.adapters.service import JsonService, NoAnswerError
from functions.common.errors import KeysUnavailableError
from tests.helpers.fakes import FakeClock
from tests.unit.functions.adapters.conftest import Dynamo

OLD, NEW = Key(1, bytes(range(32))), Key(2, bytes(range(32, 64)))
NOW = 1_795_342_500.0


class Vault:
    """A secret that counts its readers."""

    def __init__(self, *keys: Key) -> None:
        self.text = format_keys(keys)
        self.fetches = 0
        self.down = False

    def __call__(self) -> str:
        self.fetches += 1
        if self.down:
            raise KeysUnavailableError("Secrets Manager did not answer: TimeoutError")
        return self.text


@pytest.fixture
def vault() -> Vault:
    return Vault(OLD)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW)


@pytest.fixture
def source(vault: Vault, clock: FakeClock) -> SecretKeys:
    return SecretKeys(vault, clock)


def test_keys_in_the_environment_stay_as_they_are() -> None:
    ring = KeyRing([OLD])
    assert EnvironmentKeys(ring).keys(99) is ring


def test_keys_are_fetched_once_for_as_long_as_they_count_as_current(
    source: SecretKeys, vault: Vault, clock: FakeClock
) -> None:
    for moment in (0.0, 1.0, MAX_AGE - 1):
        clock.now = NOW + moment
        assert source.keys(OLD.key_id).key_ids == (1,)
    assert vault.fetches == 1
    clock.now = NOW + MAX_AGE
    source.keys(OLD.key_id)
    assert vault.fetches == 2


def test_a_rotation_has_no_moment_without_a_valid_key(
    source: SecretKeys, vault: Vault, clock: FakeClock
) -> None:
    assert source.keys(OLD.key_id).get(OLD.key_id) == OLD
    vault.text = format_keys([OLD, NEW])
    both = source.keys(NEW.key_id)
    assert (both.get(OLD.key_id), both.get(NEW.key_id)) == (OLD, NEW), "at once, though the cache is young"
    vault.text = format_keys([NEW])
    clock.now += MAX_AGE
    assert source.keys(NEW.key_id).key_ids == (2,), (
        "the retired key is accepted no longer than the cache lasts"
    )


def test_unknown_key_ids_are_looked_up_seldom(source: SecretKeys, vault: Vault, clock: FakeClock) -> None:
    source.keys(OLD.key_id)
    for second in range(100):
        clock.now = NOW + second
        assert source.keys(1000 + second).get(1000 + second) is None
    assert vault.fetches == 1 + 100 // LOOK_INTERVAL


def test_behind_the_door_a_key_is_looked_for_soon_again(vault: Vault, clock: FakeClock) -> None:
    source = SecretKeys(vault, clock, look_interval=PROVEN_INTERVAL)
    assert source.keys(NEW.key_id).key_ids == source.keys(NEW.key_id).key_ids == (1,)
    vault.text = format_keys([NEW])
    clock.now += PROVEN_INTERVAL
    assert source.keys(NEW.key_id).key_ids == (2,)
    assert vault.fetches == 3


def test_an_outage_leaves_the_keys_valid_for_a_bounded_time(
    source: SecretKeys, vault: Vault, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    source.keys(OLD.key_id)
    vault.down = True
    clock.now = NOW + MAX_STALE - 1
    assert source.keys(OLD.key_id).get(OLD.key_id) == OLD
    assert [record.message for record in caplog.records] == ["keys not fetched"]
    clock.now = NOW + MAX_STALE
    with pytest.raises(KeysUnavailableError, match="did not answer"):
        source.keys(OLD.key_id)
    vault.down = False
    clock.now += STALE_INTERVAL
    assert source.keys(OLD.key_id).get(OLD.key_id) == OLD


def test_without_any_keys_it_tries_again_soon(source: SecretKeys, vault: Vault, clock: FakeClock) -> None:
    vault.down = True
    for _ in range(3):
        with pytest.raises(KeysUnavailableError, match="did not answer"):
            source.keys(OLD.key_id)
    assert vault.fetches == 1
    vault.down = False
    clock.now += RETRY_INTERVAL
    assert source.keys(OLD.key_id).key_ids == (1,)


def test_a_clock_that_is_set_back_does_not_make_keys_young(
    source: SecretKeys, vault: Vault, clock: FakeClock
) -> None:
    source.keys(OLD.key_id)
    clock.now = NOW - 86_400
    vault.text = format_keys([NEW])
    assert source.keys(NEW.key_id).key_ids == (2,)


@pytest.mark.parametrize("text", ["", "{}", "nonsense", '[{"kid": 1, "data": "c2VjcmV0"}]'])
def test_a_secret_that_holds_no_keys_says_so_and_shows_nothing(
    source: SecretKeys, vault: Vault, text: str
) -> None:
    vault.text = text
    with pytest.raises(KeysUnavailableError, match="the keys' secret: ") as caught:
        source.keys(1)
    assert "c2VjcmV0" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_what_generate_secret_string_makes_is_one_key(source: SecretKeys, vault: Vault) -> None:
    vault.text = json.dumps({"kid": 1, "data": "aB3" * 21 + "x"})
    key = source.keys(1).get(1)
    assert key is not None
    assert len(key.secret) == 48


@pytest.fixture
def secrets(dynamo_server: Dynamo) -> Iterator[Any]:
    """The SDK's client of the test run's Secrets Manager."""
    client = dynamo_server.client("secretsmanager")
    yield client
    client.close()


@pytest.fixture
def manager(dynamo_server: Dynamo) -> Iterator[JsonService]:
    """What the functions read it with."""
    aws = dynamo_server.aws()
    yield aws.secrets_manager
    aws.close()


@pytest.fixture
def arn(secrets: Any) -> Iterator[str]:
    made = secrets.create_secret(Name="keys", SecretString=format_keys([OLD]))["ARN"]
    yield made
    secrets.delete_secret(SecretId=made, ForceDeleteWithoutRecovery=True)


def test_the_current_version_of_the_secret_is_read(secrets: Any, manager: JsonService, arn: str) -> None:
    source = SecretKeys(Secret(manager, arn))
    assert source.keys(1).get(1) == OLD
    secrets.put_secret_value(SecretId=arn, SecretString=format_keys([OLD, NEW]))
    assert Secret(manager, arn)() == format_keys([OLD, NEW])


def test_a_secret_that_is_absent_is_named(manager: JsonService) -> None:
    with pytest.raises(KeysUnavailableError, match="secret nowhere: ResourceNotFoundException"):
        Secret(manager, "nowhere")()


def test_a_secret_of_bytes_is_refused(secrets: Any, manager: JsonService, arn: str) -> None:
    secrets.put_secret_value(SecretId=arn, SecretBinary=b"\0\1")
    with pytest.raises(KeysUnavailableError, match="holds bytes; want a SecretString"):
        Secret(manager, arn)()


def test_a_secrets_manager_that_does_not_answer_is_no_bug() -> None:
    class Silent:
        def call(self, operation: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
            assert (operation, arguments) == ("GetSecretValue", {"SecretId": "keys"})
            raise NoAnswerError("TimeoutError: timed out")

    with pytest.raises(KeysUnavailableError, match="Secrets Manager did not answer: TimeoutError: timed out"):
        Secret(Silent(), "keys")()
