"""The relay's settings: every fault is named, at once, before anything is dialled."""

from __future__ import annotations

import pytest

from emissary_lib.protocol.errors import ConfigError
from functions.relay.settings import RelaySettings

GOOD = {
    "AWS_REGION": "eu-central-1",
    "EMISSARY_WEBSOCKET_URL": "wss://a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com/emissary",
    "EMISSARY_ALLOWED_PROXY_TARGETS": '[{"host": "db.internal", "port": 5432}]',
    "EMISSARY_DNS_SERVERS": "10.0.0.2 1.1.1.1",
}


def test_settings_are_read() -> None:
    settings = RelaySettings.from_env(GOOD)
    assert settings.domain == "a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com"
    assert settings.stage == "emissary"
    assert settings.region == "eu-central-1"
    assert settings.dns_servers == ("10.0.0.2", "1.1.1.1")
    assert " ".join(map(str, settings.allow.rules)) == "db.internal:5432"


def test_the_url_s_scheme_is_one_in_any_case() -> None:
    given = GOOD["EMISSARY_WEBSOCKET_URL"].replace("wss", "WSS")
    settings = RelaySettings.from_env({**GOOD, "EMISSARY_WEBSOCKET_URL": given})
    assert settings.websocket_url == GOOD["EMISSARY_WEBSOCKET_URL"]


def test_dns_servers_are_optional() -> None:
    assert RelaySettings.from_env({**GOOD, "EMISSARY_DNS_SERVERS": ""}).dns_servers == ()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("EMISSARY_WEBSOCKET_URL", ""),
        ("EMISSARY_WEBSOCKET_URL", "https://a1b2c3d4e5.example/emissary"),
        ("EMISSARY_WEBSOCKET_URL", "wss:///emissary"),
        ("EMISSARY_WEBSOCKET_URL", "wss://[::1/emissary"),
        ("EMISSARY_WEBSOCKET_URL", "wss://example:port/emissary"),
        ("AWS_REGION", " "),
        ("EMISSARY_ALLOWED_PROXY_TARGETS", "no JSON"),
        ("EMISSARY_ALLOWED_PROXY_TARGETS", '[{"host": "db"}]'),
        ("EMISSARY_DNS_SERVERS", "10.0.0.2,1.1.1.1"),
        ("EMISSARY_DNS_SERVERS", "dns.example"),
    ],
)
def test_wrong_setting_is_named(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=name):
        RelaySettings.from_env({**GOOD, name: value})


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        RelaySettings.from_env({"EMISSARY_DNS_SERVERS": "x y"})
    assert len(caught.value.faults) >= 5


@pytest.mark.parametrize(
    ("grace", "silence"),
    [("60", 60.0), ("5", 20.0), ("120", 120.0), ("300", 260.0)],
    ids=["as it comes", "no sooner than with data", "the grace", "no later than the dialer's PING"],
)
def test_silence_is_asked_about_while_a_dialer_would_still_wait(grace: str, silence: float) -> None:
    """docs/protocol.md section 5.5; an orphan ends after PING interval, PONG deadline and grace."""
    probing = RelaySettings.from_env({**GOOD, "EMISSARY_GRACE_SECONDS": grace}).probing
    assert (probing.silence, probing.orphan) == (silence, 260.0 + float(grace))
    # A dialer with unacknowledged data notices after 30 + 20 s, resumes, and waits for the grace.
    assert probing.silence + probing.deadline < 50.0 + float(grace)
