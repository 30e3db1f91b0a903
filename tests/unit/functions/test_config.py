"""Settings: complete, or one error with every fault and no secret."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from emissary_lib.bridge.session import RELAY_TIME
from emissary_lib.protocol.errors import ConfigError
from emissary_lib.protocol.targets.allow_list import AllowList, Target
from functions.common import config

GOOD = {
    "AWS_REGION": "eu-central-1",
    "EMISSARY_TABLE": "sessions",
    "EMISSARY_SLOT_TABLE": "slots",
    "EMISSARY_RELAY_FUNCTION": "relay",
    "EMISSARY_AUTH_KEYS": '[{"kid": 1, "data": "AAECAwQFBgcICQoLDA0ODw"}]',
    "EMISSARY_ALLOWED_PROXY_TARGETS": '[{"host": "db.internal", "port": 5432}]',
}


def test_each_function_reads_what_it_needs() -> None:
    connect = config.connect_settings(GOOD)
    assert (connect.table, connect.slot_table, connect.region) == ("sessions", "slots", "eu-central-1")
    assert connect.keys.ring.key_ids == (1,)
    assert connect.relay_function == "relay"
    assert connect.allow.permits(Target("db.internal", 5432))
    default = config.default_settings(GOOD)
    assert (default.table, default.slot_table, default.relay_function) == ("sessions", "slots", "relay")
    assert default.allow.permits(Target("db.internal", 5432))
    assert config.disconnect_settings(GOOD) == config.DisconnectSettings("sessions", "slots", "eu-central-1")


def test_every_fault_is_told_at_once() -> None:
    bad = {
        "EMISSARY_TABLE": " ",
        "EMISSARY_AUTH_KEYS": '[{"kid": -1, "data": "AAECAwQFBgcICQoLDA0ODw"}, {"kid": 1, "data": "AAEC"}]',
    }
    with pytest.raises(ConfigError) as caught:
        config.default_settings(bad)
    faults = caught.value.faults
    assert [fault.partition(":")[0].partition(" ")[0] for fault in faults] == [
        "EMISSARY_TABLE",
        "EMISSARY_SLOT_TABLE",
        "AWS_REGION",
        "EMISSARY_RELAY_FUNCTION",
        "EMISSARY_AUTH_KEYS",
        "EMISSARY_AUTH_KEYS",
    ]
    assert "AAEC" not in str(caught.value)


def test_without_a_table_disconnect_does_not_start() -> None:
    with pytest.raises(ConfigError, match="EMISSARY_TABLE is not set"):
        config.disconnect_settings({"AWS_REGION": "eu-central-1"})


def test_settings_show_no_secret() -> None:
    assert "ring" not in repr(config.connect_settings(GOOD))
    assert "ring" not in repr(config.default_settings(GOOD))


@pytest.mark.parametrize(("text", "level"), [("", "INFO"), ("debug", "DEBUG"), ("loud", "INFO")])
def test_a_wrong_log_level_reads_as_info(text: str, level: str) -> None:
    assert config.log_level({"EMISSARY_LOG_LEVEL": text}) == level


def test_a_secret_wins_over_keys_in_the_environment() -> None:
    settings = config.connect_settings({**GOOD, "EMISSARY_AUTH_KEYS_SECRET": "arn:example"})
    assert (settings.keys.secret, len(settings.keys.ring)) == ("arn:example", 0)
    # What is in the other variable is not even looked at.
    without = {**GOOD, "EMISSARY_AUTH_KEYS": "nonsense", "EMISSARY_AUTH_KEYS_SECRET": "arn:example"}
    assert config.default_settings(without).keys.secret == "arn:example"


@pytest.mark.parametrize("read", [config.connect_settings, config.default_settings])
def test_a_secret_of_another_region_is_a_fault_that_names_both(
    read: Callable[[Mapping[str, str]], object],
) -> None:
    """The template cannot refuse it: its rules have nothing that takes an ARN apart."""
    given = {
        **GOOD,
        "EMISSARY_AUTH_KEYS_SECRET": "arn:aws:secretsmanager:eu-west-1:111122223333:secret:k-AbCdEf",
    }
    with pytest.raises(
        ConfigError, match=r"KeySecretArn\): .* region 'eu-west-1', the stack of 'eu-central-1'"
    ):
        read(given)
    read({**given, "AWS_REGION": "eu-west-1"})
    # A name has no region: Secrets Manager looks for it where it is asked.
    read({**given, "EMISSARY_AUTH_KEYS_SECRET": "team/keys"})


def test_limits_of_sessions_are_none_unless_given() -> None:
    default = config.default_settings(GOOD)
    assert (default.max_sessions, default.max_sessions_per_key) == (0, 0)
    limited = {**GOOD, "EMISSARY_MAX_SESSIONS": "20", "EMISSARY_MAX_SESSIONS_PER_KEY": "5"}
    default = config.default_settings(limited)
    assert (default.max_sessions, default.max_sessions_per_key) == (20, 5)


@pytest.mark.parametrize(
    ("sessions", "relays", "most"), [(0, 0, 0), (5, 0, 5), (0, 5, 5), (5, 3, 3), (3, 5, 3), (4, 4, 4)]
)
def test_there_are_never_more_sessions_than_relays_that_may_run(
    sessions: int, relays: int, most: int
) -> None:
    given = {"EMISSARY_MAX_SESSIONS": str(sessions), "EMISSARY_RELAY_CONCURRENCY": str(relays)}
    assert config.default_settings({**GOOD, **given}).max_sessions == most


def test_the_stacks_times_are_read_and_an_older_stack_s_environment_is_good() -> None:
    assert config.connect_settings(GOOD).relay_time == RELAY_TIME
    default = config.default_settings(GOOD)
    assert (default.relay_time, default.grace) == (RELAY_TIME, 60)
    assert config.disconnect_settings(GOOD).grace == 60
    given = {**GOOD, "EMISSARY_RELAY_TIMEOUT": "120", "EMISSARY_GRACE_SECONDS": "7.5"}
    assert config.connect_settings(given).relay_time == 120
    default = config.default_settings(given)
    assert (default.relay_time, default.grace) == (120, 7.5)
    assert config.disconnect_settings(given).grace == 7.5


def test_a_relay_without_ipv6_is_taken_to_be_behind_a_nat_gateway() -> None:
    for text, nat in (("", True), ("false", True), ("true", False)):
        given = {**GOOD, "EMISSARY_RELAY_IPV6": text}
        assert config.default_settings(given).nat is nat
        assert config.disconnect_settings(given).nat is nat
    with pytest.raises(ConfigError, match="EMISSARY_RELAY_IPV6: 'yes' is neither true nor false"):
        config.disconnect_settings({**GOOD, "EMISSARY_RELAY_IPV6": "yes"})


@pytest.mark.parametrize("text", ["0", "-1", "soon", "inf", "nan"])
def test_a_time_that_is_none_is_a_fault(text: str) -> None:
    given = {**GOOD, "EMISSARY_RELAY_TIMEOUT": text, "EMISSARY_GRACE_SECONDS": text}
    relay_timeout = f"EMISSARY_RELAY_TIMEOUT: '{text}' is no number of seconds above 0"
    grace = f"EMISSARY_GRACE_SECONDS: '{text}' is no number of seconds above 0"
    for read, faults in (
        (config.connect_settings, (relay_timeout,)),
        (config.default_settings, (relay_timeout, grace)),
        (config.disconnect_settings, (grace,)),
    ):
        with pytest.raises(ConfigError) as caught:
            read(given)
        assert caught.value.faults == faults


@pytest.mark.parametrize("name", ["EMISSARY_MAX_SESSIONS", "EMISSARY_RELAY_CONCURRENCY"])
@pytest.mark.parametrize("text", ["-1", "1.5", "many", "1001", "²"])
def test_a_limit_that_is_no_number_in_range_is_a_fault(name: str, text: str) -> None:
    with pytest.raises(ConfigError, match=rf"{name}: .* from 0 \(no limit\) to 1000"):
        config.default_settings({**GOOD, name: text})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[{"host": "10.0.1.7/16", "port": 5432}]', "is not a network"),
        ('[{"host": "db.internal", "port": 5432},]', "is not JSON"),
        ("", "is not JSON"),
    ],
)
def test_an_allow_list_that_cannot_be_read_permits_nothing_and_says_why(text: str, says: str) -> None:
    settings = config.default_settings({**GOOD, "EMISSARY_ALLOWED_PROXY_TARGETS": text})
    assert settings.allow == AllowList()
    assert settings.allow_fault.startswith(
        "EMISSARY_ALLOWED_PROXY_TARGETS (template parameter AllowedTargets): "
    )
    assert says in settings.allow_fault
