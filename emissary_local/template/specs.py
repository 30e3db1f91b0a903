"""What the local cloud runs of a template, with every reference resolved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emissary_local.template.secrets import SecretSpec


@dataclass(frozen=True, slots=True)
class FunctionSpec:
    """One Lambda function as the template describes it.

    Attributes:
        logical_id: Its name in the template; how the local cloud's parts call it.
        name: Its physical name, what ``!Ref`` gives and Lambda's Invoke API takes.
        arn: Its ARN.
        handler: ``module.path.function``.
        runtime: Lambda's runtime name, such as ``python3.13``; informative, the functions run under the
            Python that runs the local cloud.
        task_root: The unpacked code: working directory and first entry of ``sys.path``. Of code in the
            template the template's folder, until the cloud writes the code to one of its own.
        timeout: Longest run of one invocation, in seconds.
        memory: Memory size in MB; billed, not enforced.
        environment: The template's variables.
        reserved_concurrency: Reserved concurrent executions, or None for the shared pool.
        retry_attempts: How often an asynchronous invocation that failed is tried again.
        event_age: How long an asynchronous invocation may wait, in seconds.
        policies: IAM policies of its role: the documents written into it or attached by AWS::IAM::Policy,
            and the ARNs of AWS's managed policies. Those of the template's own are not among them.
        managed_policies: Documents of the template's managed policies that its role has, by logical id.
        boundary: The document of its role's permissions boundary, or None if it has none.
        inline_code: The text of ``index.py``, of a function whose code is in the template.
        system_log: Whether Lambda writes lines of its own for each invocation (``SystemLogLevel``).
        nat: Whether its way out is taken to be a NAT gateway: it is in a VPC, and has no IPv6 there.
    """

    logical_id: str
    name: str
    arn: str
    handler: str
    runtime: str
    task_root: Path
    timeout: float
    memory: int
    environment: Mapping[str, str] = field(repr=False)  # it holds the shared keys
    reserved_concurrency: int | None = None
    retry_attempts: int = 2
    event_age: float = 21_600.0
    policies: tuple[Any, ...] = ()
    managed_policies: Mapping[str, Any] = field(default_factory=dict)
    boundary: Any = None
    inline_code: str | None = field(default=None, repr=False)
    system_log: bool = True
    nat: bool = False


@dataclass(frozen=True, slots=True)
class Throttle:
    """A stage or route throttle: a token bucket of ``burst`` requests refilled at ``rate`` a second."""

    burst: int | None
    rate: float | None


@dataclass(frozen=True, slots=True)
class Route:
    """What is behind a route.

    Attributes:
        function: Logical id of its function; None: a MOCK integration, which answers by itself.
        status: What a MOCK integration answers.
        replies: Whether the body that the function returns goes back to the client, as a message.
        timeout: Longest wait for the function, in seconds; None: API Gateway's own.
    """

    function: str | None
    status: int = 200
    replies: bool = False
    timeout: float | None = None


@dataclass(frozen=True, slots=True)
class Authorizer:
    """The function that is asked before ``$connect``.

    Attributes:
        function: Its logical id.
        headers: Headers that an upgrade must have, or it is refused without asking.
        parameters: Query parameters of the same kind.
    """

    function: str
    headers: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WebSocketApi:
    """The WebSocket API.

    Attributes:
        logical_id: Its name in the template.
        api_id: Its id, the first label of its domain name on AWS.
        stage: The stage's name, the path of its URL.
        routes: Route key (``$connect``, ``sendmessage``...) -> what is behind it.
        route_selection: The RouteSelectionExpression.
        default_throttle: Throttle of routes without one of their own.
        route_throttles: Route key -> throttle.
        authorizer: Who is asked before ``$connect``, or None.
    """

    logical_id: str
    api_id: str
    stage: str
    routes: Mapping[str, Route]
    route_selection: str
    default_throttle: Throttle
    route_throttles: Mapping[str, Throttle] = field(default_factory=dict)
    authorizer: Authorizer | None = None


@dataclass(frozen=True, slots=True)
class TableSpec:
    """One DynamoDB table.

    Attributes:
        logical_id: Its name in the template.
        name: Its physical name.
        definition: Arguments of DynamoDB's CreateTable call.
        ttl_attribute: Attribute with the expiry time, or None.
    """

    logical_id: str
    name: str
    definition: Mapping[str, Any]
    ttl_attribute: str | None


@dataclass(frozen=True, slots=True)
class Template:
    """What the local cloud runs of a template; mappings are keyed by logical id."""

    path: Path
    functions: Mapping[str, FunctionSpec]
    api: WebSocketApi
    tables: Mapping[str, TableSpec]
    secrets: Mapping[str, SecretSpec] = field(default_factory=dict)
