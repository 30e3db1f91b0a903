"""The environment variables and credentials Lambda gives a function."""

from __future__ import annotations

import secrets
import string
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from emissary_local.aws.iam.privileges import OPERATOR
from emissary_local.aws.sigv4 import Credentials
from emissary_local.template import names
from emissary_local.template.specs import FunctionSpec

_LETTERS = string.ascii_uppercase + string.digits


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where the functions find the local services.

    Attributes:
        endpoint: Base URL of DynamoDB, Lambda and Secrets Manager.
        callback: Base URL of ``@connections``, with the stage.
        websocket: URL of the WebSocket API, with the stage.
        ca_file: PEM file with the local authority, or None without TLS.
        url_variables: Names of the variables that are to hold ``websocket``.
    """

    endpoint: str
    callback: str
    websocket: str
    ca_file: str | None = None
    url_variables: tuple[str, ...] = ()

    def variables(self) -> dict[str, str]:
        """The variables that lead the AWS SDK and the functions to the local services."""
        variables = {
            "AWS_ENDPOINT_URL": self.endpoint,  # which refuses what it does not have
            "AWS_ENDPOINT_URL_DYNAMODB": self.endpoint,
            "AWS_ENDPOINT_URL_LAMBDA": self.endpoint,
            "AWS_ENDPOINT_URL_SECRETS_MANAGER": self.endpoint,
            "AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI": self.callback,
            **dict.fromkeys(self.url_variables, self.websocket),
        }
        if self.ca_file is not None:
            variables |= {"AWS_CA_BUNDLE": self.ca_file, "SSL_CERT_FILE": self.ca_file}
        return variables


@dataclass(frozen=True, slots=True)
class Identities:
    """Temporary credentials of every function, as its execution role would have.

    Attributes:
        by_function: Logical id -> credentials.
        by_key: Access key id -> credentials.
        operator: Those of the human or tool that looks on from outside.
    """

    by_function: Mapping[str, Credentials] = field(repr=False)
    by_key: Mapping[str, Credentials] = field(repr=False)
    operator: Credentials = field(repr=False)

    @classmethod
    def draw(cls, functions: Iterable[str]) -> Identities:
        """Make up fresh credentials for each logical id, and for the operator."""
        by_function = {name: _credentials(name) for name in functions}
        operator = _credentials(OPERATOR)
        everybody = [*by_function.values(), operator]
        return cls(by_function, {each.access_key_id: each for each in everybody}, operator)


def _credentials(identity: str) -> Credentials:
    return Credentials(
        access_key_id="ASIA" + "".join(secrets.choice(_LETTERS) for _ in range(16)),
        secret_access_key=secrets.token_urlsafe(30),
        session_token=secrets.token_urlsafe(120),
        identity=identity,
    )


def operator_variables(credentials: Credentials, endpoints: Endpoints) -> dict[str, str]:
    """What leads AWS's SDK or command line, run by an operator, to the local services."""
    variables = {name: value for name, value in endpoints.variables().items() if name.startswith("AWS_")}
    return {
        **variables,
        "AWS_ACCESS_KEY_ID": credentials.access_key_id,
        "AWS_SECRET_ACCESS_KEY": credentials.secret_access_key,
        "AWS_SESSION_TOKEN": credentials.session_token or "",
        "AWS_DEFAULT_REGION": names.REGION,
        "AWS_REGION": names.REGION,
    }


def environment_variables(
    spec: FunctionSpec, credentials: Credentials, endpoints: Endpoints, runtime_api: str, identifier: str
) -> dict[str, str]:
    """All variables of one execution environment; nothing else is inherited.

    Args:
        spec: The function.
        credentials: Its identity.
        endpoints: The local services.
        runtime_api: ``host:port`` of this environment's Runtime API.
        identifier: Name of the environment, part of its log stream's name.

    Source: AWS Lambda Developer Guide, "Defined runtime environment variables".
    """
    date = time.strftime("%Y/%m/%d", time.gmtime())
    return {
        **spec.environment,
        **endpoints.variables(),
        "_HANDLER": spec.handler,
        "AWS_ACCESS_KEY_ID": credentials.access_key_id,
        "AWS_DEFAULT_REGION": names.REGION,
        "AWS_EXECUTION_ENV": f"AWS_Lambda_{spec.runtime}",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(spec.memory),
        "AWS_LAMBDA_FUNCTION_NAME": spec.name,
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{spec.name}",
        "AWS_LAMBDA_LOG_STREAM_NAME": f"{date}/[$LATEST]{identifier}",
        "AWS_LAMBDA_RUNTIME_API": runtime_api,
        "AWS_REGION": names.REGION,
        "AWS_SECRET_ACCESS_KEY": credentials.secret_access_key,
        "AWS_SESSION_TOKEN": credentials.session_token or "",
        "LAMBDA_TASK_ROOT": str(spec.task_root),
        "LANG": "en_US.UTF-8",
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "TZ": ":UTC",
    }
