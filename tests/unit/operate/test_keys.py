"""Keys in their secret: somebody can always get in, and no operator's work is lost."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from emissary_lib.exceptions import OperationError
from emissary_lib.operate.keys import KeySecret, settings_line
from emissary_lib.protocol.auth.keys import Key, format_keys, parse_keys
from tests.unit.functions.adapters.conftest import Dynamo

NOW = 1_795_342_500.0
NAME = "emissary-keys"
FIRST = Key(1, bytes(range(48)))


@pytest.fixture
def client(dynamo_server: Dynamo) -> Iterator[Any]:
    """A Secrets Manager with the secret as the stack makes it."""
    made = dynamo_server.client("secretsmanager")
    (item,) = json.loads(format_keys([FIRST]))
    made.create_secret(Name=NAME, SecretString=json.dumps(item))
    yield made
    made.delete_secret(SecretId=NAME, ForceDeleteWithoutRecovery=True)
    made.close()


@pytest.fixture
def secret(client: Any) -> KeySecret:
    return KeySecret(client, NAME, clock=lambda: NOW, sleep=lambda _seconds: None)


def stored(client: Any) -> str:
    text: str = client.get_secret_value(SecretId=NAME)["SecretString"]
    return text


def test_a_key_as_the_stack_makes_it_is_as_old_as_the_secret(client: Any, secret: KeySecret) -> None:
    (first,) = secret.list()
    assert first.key == FIRST
    assert first.created == client.get_secret_value(SecretId=NAME)["CreatedDate"].timestamp()


def test_a_new_key_stands_beside_the_old_ones_and_the_functions_can_read_both(
    client: Any, secret: KeySecret
) -> None:
    new = secret.new()
    assert new.key_id == 2
    assert len(new.secret) == 32
    assert parse_keys(stored(client)) == (FIRST, new)
    assert [each.created for each in secret.list()][1] == NOW
    assert secret.new().key_id == 3


def test_the_age_of_the_first_key_is_kept_when_another_is_added(secret: KeySecret) -> None:
    (before,) = secret.list()
    secret.new()
    after = secret.list()[0].created
    assert after is not None
    assert before.created is not None
    assert abs(after - before.created) < 1


def test_an_id_can_be_chosen_but_not_twice(secret: KeySecret) -> None:
    assert secret.new(7).key_id == 7
    with pytest.raises(OperationError, match="there is a key 7 already"):
        secret.new(7)
    with pytest.raises(OperationError, match="not in the range 0 to 4294967295"):
        secret.new(-1)
    secret.new(4_294_967_295)
    with pytest.raises(OperationError, match="key ids end at 4294967295; choose a free one with --kid"):
        secret.new()


def test_a_retired_key_is_gone_and_the_rest_stays(client: Any, secret: KeySecret) -> None:
    new = secret.new()
    assert [each.key_id for each in secret.retire(1)] == [2]
    assert parse_keys(stored(client)) == (new,)


def test_the_last_key_cannot_be_retired(client: Any, secret: KeySecret) -> None:
    before = stored(client)
    with pytest.raises(OperationError, match="key 1 is the last one: nobody could dial without it"):
        secret.retire(1)
    assert stored(client) == before


def test_a_key_that_is_not_there_cannot_be_retired(secret: KeySecret) -> None:
    secret.new()
    with pytest.raises(OperationError, match="there is no key 9; the keys are: 1, 2"):
        secret.retire(9)


def test_two_operators_at_once_lose_nothing(client: Any, dynamo_server: Dynamo) -> None:
    clients = [dynamo_server.client("secretsmanager") for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda each: KeySecret(each, NAME, sleep=lambda _: None).new(), clients))
    for each in clients:
        each.close()
    assert {key.key_id for key in made} == {2, 3, 4, 5}
    assert set(parse_keys(stored(client))) == {FIRST, *made}


class Meddler:
    """A client before whose every write somebody else does something."""

    def __init__(self, client: Any, meddle: Callable[[], object]) -> None:
        self._client = client
        self._meddle = meddle
        self.exceptions = client.exceptions

    def get_secret_value(self, **arguments: Any) -> Any:
        return self._client.get_secret_value(**arguments)

    def put_secret_value(self, **arguments: Any) -> Any:
        self._meddle()
        return self._client.put_secret_value(**arguments)


def test_a_change_that_came_in_between_is_kept(client: Any, secret: KeySecret) -> None:
    others: list[Key] = []

    def meddle() -> None:
        if not others:
            others.append(secret.new())

    ours = KeySecret(Meddler(client, meddle), NAME, sleep=lambda _seconds: None).new()
    assert parse_keys(stored(client)) == (FIRST, *others, ours)
    assert ours.key_id == 3


def test_endless_meddling_is_an_error_that_says_so(client: Any, secret: KeySecret) -> None:
    busy = KeySecret(Meddler(client, lambda: secret.new()), NAME, sleep=lambda _: None)
    with pytest.raises(OperationError, match="was changed by somebody else 5 times"):
        busy.new()


@pytest.mark.parametrize("text", ["nonsense", "[]", '[{"kid": 1, "data": "c2VjcmV0"}]'])
def test_a_secret_without_keys_is_named_and_not_shown(client: Any, secret: KeySecret, text: str) -> None:
    client.put_secret_value(SecretId=NAME, SecretString=text)
    with pytest.raises(OperationError, match="the secret emissary-keys holds no keys") as caught:
        secret.new()
    assert "c2VjcmV0" not in str(caught.value)
    assert stored(client) == text


def test_a_secret_of_bytes_is_refused(client: Any, secret: KeySecret) -> None:
    client.put_secret_value(SecretId=NAME, SecretBinary=b"\0")
    with pytest.raises(OperationError, match="holds bytes"):
        secret.list()


def test_the_line_for_the_platform_is_what_its_settings_read() -> None:
    name, _, value = settings_line(FIRST).partition("=")
    assert (name, parse_keys(value.strip("'"))) == ("EMISSARY_AUTH_KEYS", (FIRST,))
