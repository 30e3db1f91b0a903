"""Where services are: in every region that the SDK knows, and where its variables put them."""

from __future__ import annotations

import functools
from typing import Any

import botocore.session
import pytest
from botocore.endpoint_provider import EndpointProvider

from emissary_lib.protocol.errors import ConfigError
from functions.common.adapters.endpoints import SERVICES, Origin, service_endpoint


@functools.cache
def partitions() -> dict[str, Any]:
    found: dict[str, Any] = botocore.session.get_session().get_data("partitions")
    return found


def regions() -> list[str]:
    return sorted(
        region
        for partition in partitions()["partitions"]
        for region in partition["regions"]
        if not region.endswith("-global")
    )


@pytest.mark.parametrize("service", SERVICES)
def test_an_endpoint_is_that_of_the_sdk_in_every_region_of_every_partition(service: str) -> None:
    session = botocore.session.get_session()
    rules = session.get_component("data_loader").load_service_model(service, "endpoint-rule-set-1")
    provider = EndpointProvider(rules, partitions())
    expected = {
        region: provider.resolve_endpoint(Region=region, UseDualStack=False, UseFIPS=False).url
        for region in regions()
    }
    assert len({url.rpartition(".")[2] for url in expected.values()}) > 3, "more than one partition"
    assert {region: service_endpoint(service, region, {}) for region in regions()} == expected


def test_a_variable_redirects_a_service_and_another_all_of_them() -> None:
    everything = {"AWS_ENDPOINT_URL": "http://127.0.0.1:1/"}
    assert service_endpoint("lambda", "eu-central-1", everything) == "http://127.0.0.1:1"
    one = everything | {"AWS_ENDPOINT_URL_SECRETS_MANAGER": "http://127.0.0.1:2"}
    assert service_endpoint("secretsmanager", "eu-central-1", one) == "http://127.0.0.1:2"
    assert service_endpoint("dynamodb", "eu-central-1", one) == "http://127.0.0.1:1"


def test_an_empty_variable_redirects_nothing() -> None:
    environ = {"AWS_ENDPOINT_URL_DYNAMODB": "", "AWS_ENDPOINT_URL": ""}
    assert (
        service_endpoint("dynamodb", "cn-north-1", environ) == "https://dynamodb.cn-north-1.amazonaws.com.cn"
    )


@pytest.mark.parametrize(
    ("url", "host", "port", "authority", "path"),
    [
        ("https://a.example", "a.example", 443, "a.example", ""),
        ("https://a.example:443/stage/", "a.example", 443, "a.example", "/stage"),
        ("https://a.example:8443/stage", "a.example", 8443, "a.example:8443", "/stage"),
        ("http://127.0.0.1", "127.0.0.1", 80, "127.0.0.1", ""),
        ("http://[::1]:4566", "::1", 4566, "[::1]:4566", ""),
    ],
)
def test_an_origin_is_told_apart(url: str, host: str, port: int, authority: str, path: str) -> None:
    origin = Origin(url)
    assert (origin.host, origin.port, origin.authority, origin.path) == (host, port, authority, path)
    assert origin.secure is url.startswith("https:")
    assert origin.url == f"{url.partition(':')[0]}://{authority}"


@pytest.mark.parametrize("url", ["", "ftp://a.example", "https:///path", "a.example"])
def test_what_is_no_url_is_a_config_error(url: str) -> None:
    with pytest.raises(ConfigError, match="is no endpoint; want https://host"):
        Origin(url)
