"""Reads a SAM template: the functions, the WebSocket API and the tables the local cloud runs.

Only what runs is read; alarms, log groups or network resources are skipped, though they may be referred
to. Intrinsic functions are resolved to local values (see :mod:`emissary_local.template.intrinsics`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from emissary_local.aws.secrets.spec import SECRET, SecretSpec, read_secret
from emissary_local.errors import TemplateError
from emissary_local.template import names
from emissary_local.template.intrinsics import Resolver, load_yaml
from emissary_local.template.rules import check_rules

_FUNCTION: Final = "AWS::Serverless::Function"
_API: Final = "AWS::Serverless::WebSocketApi"
_TABLE: Final = "AWS::DynamoDB::Table"
_ROLE: Final = "AWS::IAM::Role"
_MANAGED_POLICY: Final = "AWS::IAM::ManagedPolicy"
_LOOSE_POLICIES: Final = ("AWS::IAM::Policy", "AWS::IAM::RolePolicy")


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
        task_root: The unpacked code: working directory and first entry of ``sys.path``.
        timeout: Longest run of one invocation, in seconds.
        memory: Memory size in MB; billed, not enforced.
        environment: The template's variables.
        reserved_concurrency: Reserved concurrent executions, or None for the shared pool.
        retry_attempts: How often an asynchronous invocation that failed is tried again.
        event_age: How long an asynchronous invocation may wait, in seconds.
        policies: IAM policies of its own ``Policies``, or of the role it names: the documents written inline,
            references resolved, SAM policy templates left raw. Managed policies are not among them.
        managed_policies: Documents of the template's managed policies that its role names, by logical id.
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


@dataclass(frozen=True, slots=True)
class Throttle:
    """A stage or route throttle: a token bucket of ``burst`` requests refilled at ``rate`` a second."""

    burst: int | None
    rate: float | None


@dataclass(frozen=True, slots=True)
class WebSocketApi:
    """The WebSocket API.

    Attributes:
        logical_id: Its name in the template.
        api_id: Its id, the first label of its domain name on AWS.
        stage: The stage's name, the path of its URL.
        routes: Route key (``$connect``...) -> logical id of the function behind it.
        default_throttle: Throttle of routes without one of their own.
        route_throttles: Route key -> throttle.
    """

    logical_id: str
    api_id: str
    stage: str
    routes: Mapping[str, str]
    default_throttle: Throttle
    route_throttles: Mapping[str, Throttle] = field(default_factory=dict)


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
    """What the local cloud runs of a SAM template; mappings are keyed by logical id."""

    path: Path
    functions: Mapping[str, FunctionSpec]
    api: WebSocketApi
    tables: Mapping[str, TableSpec]
    secrets: Mapping[str, SecretSpec] = field(default_factory=dict)


def declared_parameters(path: str | Path) -> frozenset[str]:
    """Names of the parameters a template declares.

    Raises:
        TemplateError: If the file cannot be read.
    """
    return frozenset(_read(Path(path)).get("Parameters") or {})


def read_template(path: str | Path, parameters: Mapping[str, str] | None = None) -> Template:
    """Read and resolve a SAM template.

    Args:
        path: The template file; relative ``CodeUri`` values start at its directory.
        parameters: Parameter values; the rest take their defaults.

    Raises:
        TemplateError: If the file cannot be read or something in it cannot be run; says where.
    """
    file = Path(path).resolve()
    return _Reader(file, _read(file), parameters or {}).template()


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise TemplateError(f"cannot read the template {path}: {exc}") from exc
    return load_yaml(text, str(path))


class _Reader:
    def __init__(self, path: Path, document: Mapping[str, Any], given: Mapping[str, str]) -> None:
        self._path = path
        self._globals: Mapping[str, Any] = (document.get("Globals") or {}).get("Function") or {}
        self._resources: Mapping[str, Any] = document.get("Resources") or {}
        self._parameters = names.parameter_values(document.get("Parameters") or {}, given)
        self._resolver = Resolver(document, ref=self._ref, attribute=self._attribute)
        self._rules: Mapping[str, Any] = document.get("Rules") or {}

    def template(self) -> Template:
        check_rules(self._rules, self._resolver)
        self._refuse_loose_policies()
        functions = {name: self._function(name) for name in self._of_type(_FUNCTION)}
        tables = {name: self._table(name) for name in self._of_type(_TABLE)}
        secrets = {name: self._secret(name) for name in self._of_type(SECRET)}
        apis = self._of_type(_API)
        if len(apis) != 1:
            raise TemplateError(
                f"{self._path} has {len(apis)} resources of type {_API}; the local cloud runs exactly one",
                where="Resources",
            )
        return Template(self._path, functions, self._api(apis[0], functions), tables, secrets)

    def _of_type(self, wanted: str) -> list[str]:
        found = []
        for logical_id, resource in self._resources.items():
            where = f"Resources.{logical_id}"
            if not isinstance(resource, dict) or "Type" not in resource:
                raise TemplateError("a resource needs a Type", where=where)
            condition = resource.get("Condition")
            if resource["Type"] == wanted and (
                condition is None or self._resolver.condition(condition, where)
            ):
                found.append(logical_id)
        return found

    def _physical_name(self, logical_id: str) -> str:
        resource = self._resources[logical_id]
        chosen = names.name_property(resource["Type"])
        properties = resource.get("Properties") or {}
        mine = {chosen: properties[chosen]} if chosen in properties else {}
        resolved = self._resolver.resolve(mine, f"Resources.{logical_id}.Properties")
        return names.physical_name(logical_id, resource["Type"], resolved)

    def _ref(self, name: str) -> Any:
        if name in self._parameters:
            return self._parameters[name]
        if name in names.PSEUDO_PARAMETERS:
            return names.PSEUDO_PARAMETERS[name]
        return names.reference(self._resources[name]["Type"], self._physical_name(name))

    def _attribute(self, resource: str, attribute: str) -> Any:
        return names.attribute(self._resources[resource]["Type"], self._physical_name(resource), attribute)

    def _properties(self, logical_id: str, defaults: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
        where = f"Resources.{logical_id}.Properties"
        own = self._resources[logical_id].get("Properties") or {}
        return self._resolver.resolve(_merge(defaults, own), where), where

    def _function(self, logical_id: str) -> FunctionSpec:
        properties, where = self._properties(logical_id, self._globals)
        if properties.get("PackageType", "Zip") != "Zip" or "InlineCode" in properties:
            raise TemplateError("only functions with a CodeUri directory can run locally", where=where)
        code = properties.get("CodeUri", ".")
        task_root = (self._path.parent / code).resolve() if isinstance(code, str) else None
        if task_root is None or not task_root.is_dir():
            raise TemplateError(f"CodeUri {code!r} is no directory beside the template", where=where)
        handler = properties.get("Handler")
        if not isinstance(handler, str) or "." not in handler:
            raise TemplateError(f"Handler must be module.function, not {handler!r}", where=where)
        policies, managed = self._policies(properties, where)
        asynchronous = properties.get("EventInvokeConfig") or {}
        reserved = properties.get("ReservedConcurrentExecutions")
        variables = (properties.get("Environment") or {}).get("Variables") or {}
        return FunctionSpec(
            logical_id=logical_id,
            name=self._physical_name(logical_id),
            arn=self._attribute(logical_id, "Arn"),
            handler=handler,
            runtime=str(properties.get("Runtime", "python3")),
            task_root=task_root,
            timeout=_number(properties.get("Timeout", 3), f"{where}.Timeout"),
            memory=int(_number(properties.get("MemorySize", 128), f"{where}.MemorySize")),
            environment={
                key: _variable(value, f"{where}.Environment.{key}") for key, value in variables.items()
            },
            reserved_concurrency=None if reserved is None else int(_number(reserved, where)),
            retry_attempts=int(_number(asynchronous.get("MaximumRetryAttempts", 2), where)),
            event_age=_number(asynchronous.get("MaximumEventAgeInSeconds", 21_600), where),
            policies=policies,
            managed_policies=managed,
        )

    def _policies(self, function: Mapping[str, Any], where: str) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
        """Its own, or those of its role: SAM does not look at ``Policies`` beside a ``Role``."""
        if "PermissionsBoundary" in function:
            raise TemplateError("the local cloud does not evaluate a PermissionsBoundary", where=where)
        if "Role" not in function:
            policies = function.get("Policies") or []
            return tuple(policies if isinstance(policies, list) else [policies]), {}
        for logical_id in self._of_type(_ROLE):
            if self._attribute(logical_id, "Arn") == function["Role"]:
                return self._role(logical_id)
        raise TemplateError(
            f"{function['Role']!r} is no role of this template, so nobody here knows what it allows",
            where=f"{where}.Role",
        )

    def _role(self, logical_id: str) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
        """Its inline policies, and its managed ones by logical id; those of AWS among the former, as ARNs."""
        properties, where = self._properties(logical_id, {})
        if "PermissionsBoundary" in properties:
            raise TemplateError("the local cloud does not evaluate a PermissionsBoundary", where=where)
        inline = properties.get("Policies") or []
        if not all(isinstance(policy, dict) and "PolicyDocument" in policy for policy in inline):
            raise TemplateError("a role's policy needs a PolicyDocument", where=f"{where}.Policies")
        ours = {self._ref(name): name for name in self._of_type(_MANAGED_POLICY)}
        attached = properties.get("ManagedPolicyArns") or []
        managed = {}
        for name in (ours[arn] for arn in attached if arn in ours):
            policy, place = self._properties(name, {})
            if "PolicyDocument" not in policy:
                raise TemplateError("a managed policy needs a PolicyDocument", where=place)
            managed[name] = policy["PolicyDocument"]
        documents = [policy["PolicyDocument"] for policy in inline]
        return (*documents, *(arn for arn in attached if arn not in ours)), managed

    def _refuse_loose_policies(self) -> None:
        """Policies that attach themselves to roles would be missed by whoever looks at the roles."""
        for kind in _LOOSE_POLICIES:
            for logical_id in self._of_type(kind):
                raise TemplateError(
                    f"the local cloud does not evaluate {kind}; write it into the role", where=logical_id
                )
        for logical_id in self._of_type(_MANAGED_POLICY):
            if set(self._resources[logical_id].get("Properties") or {}) & {"Roles", "Users", "Groups"}:
                raise TemplateError("name a managed policy in the role, not the role in it", where=logical_id)

    def _api(self, logical_id: str, functions: Mapping[str, FunctionSpec]) -> WebSocketApi:
        properties, where = self._properties(logical_id, {})
        by_arn = {function.arn: function.logical_id for function in functions.values()}
        routes = {}
        for key, route in (properties.get("Routes") or {}).items():
            arn = route.get("FunctionArn") if isinstance(route, dict) else None
            if arn not in by_arn:
                raise TemplateError(
                    f"FunctionArn is {arn!r}, no function of this template", where=f"{where}.Routes.{key}"
                )
            routes[key] = by_arn[arn]
        per_route = (properties.get("RouteSettings") or {}).items()
        return WebSocketApi(
            logical_id=logical_id,
            api_id=self._physical_name(logical_id),
            stage=str(properties.get("StageName", "default")),
            routes=routes,
            default_throttle=_throttle(properties.get("DefaultRouteSettings") or {}, where),
            route_throttles={key: _throttle(settings, where) for key, settings in per_route},
        )

    def _table(self, logical_id: str) -> TableSpec:
        properties, where = self._properties(logical_id, {})
        if not properties.get("KeySchema") or not properties.get("AttributeDefinitions"):
            raise TemplateError("a table needs KeySchema and AttributeDefinitions", where=where)
        name = self._physical_name(logical_id)
        ttl = properties.get("TimeToLiveSpecification") or {}
        wanted = (
            "KeySchema", "AttributeDefinitions", "BillingMode", "ProvisionedThroughput",
            "GlobalSecondaryIndexes", "LocalSecondaryIndexes",
        )  # fmt: skip
        definition = {key: properties[key] for key in wanted if key in properties}
        if "ProvisionedThroughput" not in definition:
            definition.setdefault("BillingMode", "PAY_PER_REQUEST")
        return TableSpec(
            logical_id, name, {"TableName": name, **definition},
            ttl.get("AttributeName") if ttl.get("Enabled") in (True, "true") else None,
        )  # fmt: skip

    def _secret(self, logical_id: str) -> SecretSpec:
        properties, where = self._properties(logical_id, {})
        return read_secret(
            logical_id, self._physical_name(logical_id), self._attribute(logical_id, "Arn"), properties, where
        )


def _merge(defaults: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """SAM's rule for Globals: mappings are merged, lists are joined, anything else is overridden."""
    merged = dict(defaults)
    for key, value in own.items():
        base = merged.get(key)
        if isinstance(base, dict) and isinstance(value, dict):
            merged[key] = _merge(base, value)
        elif isinstance(base, list) and isinstance(value, list):
            merged[key] = [*base, *value]
        else:
            merged[key] = value
    return merged


def _number(value: Any, where: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TemplateError(f"{value!r} is no number", where=where) from None


def _variable(value: Any, where: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    raise TemplateError(f"an environment variable must be text, not {value!r}", where=where)


def _throttle(settings: Mapping[str, Any], where: str) -> Throttle:
    burst, rate = settings.get("ThrottlingBurstLimit"), settings.get("ThrottlingRateLimit")
    return Throttle(
        None if burst is None else int(_number(burst, where)),
        None if rate is None else _number(rate, where),
    )
