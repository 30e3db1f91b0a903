"""The services of AWS's that the handlers call: tables, the keys' secret, the relay.

They are a handful of signed requests (:mod:`service`), so no SDK is loaded: botocore's import, and a client
of it for each service, was half of a handler's start.
"""

from __future__ import annotations

import functools
import ssl
from collections.abc import Callable, Mapping

from functions.common.adapters.endpoints import service_endpoint
from functions.common.adapters.service import JsonService, Service
from functions.common.adapters.sigv4 import Credentials, Signer, environment_credentials


class Aws:
    """What the calls of one execution environment have in common.

    Args:
        environ: Environment variables: credentials, and the SDK's ``AWS_ENDPOINT_URL_*``.
        region: Where the services are.
        tls: Gives the TLS settings, if they are needed.
    """

    def __init__(self, environ: Mapping[str, str], region: str, tls: Callable[[], ssl.SSLContext]) -> None:
        self._environ = environ
        self._region = region
        self._tls = tls
        self._services: list[Service] = []

    @functools.cached_property
    def credentials(self) -> Credentials:
        """The function's own.

        Raises:
            ConfigError: There are none; so does every service.
        """
        return environment_credentials(self._environ)

    @functools.cached_property
    def dynamodb(self) -> JsonService:
        """DynamoDB."""
        return JsonService(self._service("dynamodb"), "DynamoDB_20120810", "1.0")

    @functools.cached_property
    def secrets_manager(self) -> JsonService:
        """Secrets Manager."""
        return JsonService(self._service("secretsmanager"), "secretsmanager", "1.1")

    @functools.cached_property
    def lambda_service(self) -> Service:
        """Lambda."""
        return self._service("lambda")

    def close(self) -> None:
        """Close every kept connection; a later call makes new ones."""
        for service in self._services:
            service.close()

    def _service(self, name: str) -> Service:
        endpoint = service_endpoint(name, self._region, self._environ)
        service = Service(endpoint, Signer(name, self._region, self.credentials), tls=self._tls)
        self._services.append(service)
        return service
