"""Where AWS's services are.

Source: AWS general reference, "AWS service endpoints"; the partitions' domains as botocore has them
(``partitions.json``); AWS SDKs and tools reference guide, "Service-specific endpoints".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import SplitResult, urlsplit

from emissary_lib.protocol.errors import ConfigError

#: A service's name in addresses and signatures -> the SDK's variable that names another address.
SERVICES: Final = {
    "dynamodb": "AWS_ENDPOINT_URL_DYNAMODB",
    "lambda": "AWS_ENDPOINT_URL_LAMBDA",
    "secretsmanager": "AWS_ENDPOINT_URL_SECRETS_MANAGER",
}

#: The same for all services; one's own counts for more.
EVERY_SERVICE: Final = "AWS_ENDPOINT_URL"

#: How the regions of a partition begin -> the partition's domain. All others are of the first partition, or
#: of GovCloud, which has the same domain.
_DOMAINS: Final = {
    "cn-": "amazonaws.com.cn",
    "eusc-": "amazonaws.eu",
    "us-iso-": "c2s.ic.gov",
    "us-isob-": "sc2s.sgov.gov",
    "eu-isoe-": "cloud.adc-e.uk",
    "us-isof-": "csp.hci.ic.gov",
}
_DOMAIN: Final = "amazonaws.com"

_PORTS: Final = {"https": 443, "http": 80}


def service_endpoint(service: str, region: str, environ: Mapping[str, str]) -> str:
    """The URL of a service in a region, unless a variable names another; without a slash at its end.

    Args:
        service: One of :data:`SERVICES`.
        region: Such as ``eu-central-1``, in whichever partition.
        environ: Environment variables.
    """
    if redirected := environ.get(SERVICES[service]) or environ.get(EVERY_SERVICE):
        return redirected.rstrip("/")
    domain = next((domain for start, domain in _DOMAINS.items() if region.startswith(start)), _DOMAIN)
    return f"https://{service}.{region}.{domain}"


class Origin:
    """The parts of an endpoint's URL.

    Attributes:
        secure: Whether it is https.
        host: Where to connect to; an IPv6 address has no brackets.
        port: Its own, or the scheme's.
        authority: As the header ``Host`` has it.
        path: What every path begins with; empty, or from a slash on to something else.
        url: Scheme and authority.

    Raises:
        ConfigError: If it is no http or https URL.
    """

    __slots__ = ("authority", "host", "path", "port", "secure", "url")

    def __init__(self, endpoint: str, what: str = "endpoint") -> None:
        url: SplitResult = urlsplit(endpoint)
        if url.scheme not in _PORTS or not url.hostname:
            raise ConfigError(f"{endpoint!r} is no {what}; want https://host, and a path perhaps")
        self.secure = url.scheme == "https"
        self.host = url.hostname
        self.port = url.port or _PORTS[url.scheme]
        # Without a port that goes without saying: that is how it is signed, and sent.
        shown = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
        self.authority = shown if self.port == _PORTS[url.scheme] else f"{shown}:{self.port}"
        self.path = url.path.rstrip("/")
        self.url = f"{url.scheme}://{self.authority}"
