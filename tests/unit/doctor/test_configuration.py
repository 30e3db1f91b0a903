"""The first check: each probe in which a setting is missing, wrong, or odd."""

from __future__ import annotations

import pathlib

import pytest

from emissary_lib.client.settings import SettingsReader
from emissary_lib.doctor import configuration
from emissary_lib.doctor.checks import Status
from emissary_lib.doctor.configuration import Settings
from emissary_lib.exceptions import ConfigError
from emissary_lib.exit_status import Exit
from emissary_lib.protocol.auth.keys import Key, format_keys
from emissary_lib.system import FILE_MODES
from emissary_lib.transport.proxy import Proxy
from tests.helpers.doctor import ENVIRON, HOST, KEY, URL, no_proxy


def fresh(environ: dict[str, str], env_file: pathlib.Path | None = None) -> Settings:
    return Settings(SettingsReader(environ, default_file=env_file), no_proxy, 20.0)


@pytest.fixture
def env_file(tmp_path: pathlib.Path) -> pathlib.Path:
    """A whole one, for its owner alone."""
    path = tmp_path / ".env"
    path.write_text("".join(f"{name}='{value}'\n" for name, value in ENVIRON.items()))
    path.chmod(0o600)
    return path


def test_configuration_tells_url_source_and_key_ids_and_no_secret() -> None:
    keys = format_keys([KEY, Key(8, b"s" * 32)])
    given = fresh({**ENVIRON, "EMISSARY_AUTH_KEYS": keys})
    found = configuration.configuration(given)
    assert found.status is Status.OK
    assert found.fact == f"{URL} from the environment, signing with key id 7, also given: 8"
    assert (given.known_endpoint.url, given.known_key) == (URL, KEY)


def test_configuration_is_read_from_the_env_file_too(env_file: pathlib.Path) -> None:
    found = configuration.configuration(fresh({}, env_file))
    assert found.status is Status.OK
    assert str(env_file) in found.fact


@pytest.mark.skipif(not FILE_MODES, reason="modes say nothing here")
def test_an_env_file_that_others_may_write_is_a_warning(env_file: pathlib.Path) -> None:
    env_file.chmod(0o666)
    found = configuration.configuration(fresh({}, env_file))
    assert found.status is Status.WARNING
    assert found.fact.endswith(f"; {env_file} holds keys, and others may write it (mode 0666)")
    assert found.hint == f"chmod 600 {env_file}"
    env_file.write_text(f"EMISSARY_URL={URL}\n")
    assert configuration.configuration(fresh(ENVIRON, env_file)).status is Status.OK


@pytest.mark.parametrize(
    "suffix", ["amazonaws.com", "api.aws", "amazonaws.com.cn", "amazonaws.eu", "c2s.ic.gov", "cloud.adc-e.uk"]
)
def test_api_gateways_own_names_are_known_in_every_partition(suffix: str) -> None:
    """Source: botocore's partitions.json, dnsSuffix."""
    assert configuration.EXECUTE_API.fullmatch(f"a1b2c3d4e5.execute-api.xy-west-1.{suffix}")
    assert not configuration.EXECUTE_API.fullmatch("emissary.example.com")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"EMISSARY_URL": ""}, "EMISSARY_URL is not set"),
        ({"EMISSARY_URL": "https://host/stage"}, "not of the form wss://host/stage"),
        ({"EMISSARY_URL": "ws://gateway.example/stage"}, "is not encrypted"),
        ({"EMISSARY_AUTH_KEYS": ""}, "EMISSARY_AUTH_KEYS is not set"),
        ({"EMISSARY_AUTH_KEYS": "secret"}, "keys are not JSON"),
        ({"EMISSARY_AUTH_KEYS": '[{"kid": 1, "data": "c2hvcnQ="}]'}, "key 1 has 5 secret bytes"),
    ],
)
def test_a_setting_that_is_missing_or_wrong_breaks_the_first_check(change: dict[str, str], says: str) -> None:
    found = configuration.configuration(fresh({**ENVIRON, **change}))
    assert (found.status, found.exit) == (Status.FAILED, Exit.SETTINGS)
    assert says in found.fact
    assert "EMISSARY_URL and EMISSARY_AUTH_KEYS" in found.hint


def test_an_env_file_that_cannot_be_read_breaks_the_first_check(tmp_path: pathlib.Path) -> None:
    path = tmp_path / ".env"
    path.write_text("EMISSARY_URL\tno setting\n")
    found = configuration.configuration(fresh({}, path))
    assert found.exit is Exit.SETTINGS
    assert "line 1" in found.fact


def test_a_proxy_that_is_none_breaks_the_first_check() -> None:
    def broken(url: str) -> Proxy | None:
        raise ConfigError("the proxy in the environment is no URL")

    given = fresh(ENVIRON)
    given.proxy_of = broken
    assert "the proxy in the environment" in configuration.configuration(given).fact


def test_a_url_that_is_odd_but_may_work_is_a_warning() -> None:
    found = configuration.configuration(fresh({**ENVIRON, "EMISSARY_URL": f"wss://{HOST}"}))
    assert found.status is Status.WARNING
    assert "no stage" in found.hint


def test_a_scheme_in_capitals_is_taken_and_so_is_the_proxy_s_question() -> None:
    asked: list[str] = []
    given = fresh({**ENVIRON, "EMISSARY_URL": URL.replace("wss", "WSS")})
    given.proxy_of = lambda url: asked.append(url)
    found = configuration.configuration(given)
    assert (found.status, asked) == (Status.OK, [URL])
    assert found.fact.startswith(f"{URL} from the environment")


@pytest.mark.parametrize("url", ["ws://127.0.0.1:8080/emissary", "ws://localhost:1/x", "wss://db.example"])
def test_a_local_cloud_and_a_custom_domain_are_fine(url: str) -> None:
    assert configuration.configuration(fresh({**ENVIRON, "EMISSARY_URL": url})).status is Status.OK
