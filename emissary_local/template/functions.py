"""The functions of a stack: their code, their settings, and what their roles allow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from emissary_local.errors import TemplateError
from emissary_local.template.resources import (
    EVENT_INVOKE_CONFIG,
    FUNCTION,
    MANAGED_POLICY,
    POLICY,
    ROLE,
    ROLE_POLICY,
)
from emissary_local.template.sam import LOCAL_CODE
from emissary_local.template.specs import FunctionSpec
from emissary_local.template.stack import Stack, number

#: The module that CloudFormation makes of code in the template.
_INLINE_MODULE: Final = "index"


def read_functions(stack: Stack, elsewhere: Mapping[str, Any]) -> dict[str, FunctionSpec]:
    """All functions of a stack, by logical id.

    Args:
        stack: The stack.
        elsewhere: By ARN, documents of managed policies that the template does not make.

    Raises:
        TemplateError: If one cannot be run as on AWS.
    """
    roles = {stack.attribute(name, "Arn"): name for name in stack.of_type(ROLE)}
    attached = _attached_policies(stack)
    asynchronous = dict(_asynchronous(stack))
    functions = {}
    for logical_id in stack.of_type(FUNCTION):
        properties, where = stack.properties(logical_id)
        name = stack.name(logical_id)
        role = properties.get("Role")
        if role not in roles:
            raise TemplateError(
                f"{role!r} is no role of this template, so nobody here knows what it allows",
                where=f"{where}.Role",
            )
        policies, managed = _role(stack, roles[role], attached, elsewhere)
        settings, place = asynchronous.get(name, ({}, ""))
        reserved = properties.get("ReservedConcurrentExecutions")
        variables = (properties.get("Environment") or {}).get("Variables") or {}
        task_root, inline_code = _code(stack.path.parent, properties.get("Code"), f"{where}.Code")
        functions[logical_id] = FunctionSpec(
            logical_id=logical_id,
            name=name,
            arn=stack.attribute(logical_id, "Arn"),
            handler=_handler(properties, inline_code is not None, where),
            runtime=_runtime(properties, where),
            task_root=task_root,
            timeout=number(properties.get("Timeout", 3), f"{where}.Timeout"),
            memory=int(number(properties.get("MemorySize", 128), f"{where}.MemorySize")),
            environment={
                key: _variable(value, f"{where}.Environment.Variables.{key}")
                for key, value in variables.items()
            },
            reserved_concurrency=None if reserved is None else int(number(reserved, where)),
            retry_attempts=int(number(settings.get("MaximumRetryAttempts", 2), place)),
            event_age=number(settings.get("MaximumEventAgeInSeconds", 21_600), place),
            policies=policies,
            managed_policies=managed,
            boundary=_boundary(stack, roles[role], elsewhere),
            inline_code=inline_code,
            system_log=(properties.get("LoggingConfig") or {}).get("SystemLogLevel") != "WARN",
            nat=_needs_nat(stack, logical_id),
        )
    return functions


def _needs_nat(stack: Stack, logical_id: str) -> bool:
    try:
        vpc = stack.passed_over(logical_id, "VpcConfig") or {}
    except TemplateError:
        return True  # its subnets are another stack's, say; it is for the bill alone, on the dear side
    return bool(vpc.get("SubnetIds")) and str(vpc.get("Ipv6AllowedForDualStack", False)).lower() != "true"


def function_name(reference: Any) -> str:
    """The name in what a resource calls a function: its name, or an ARN, whole or in part."""
    return str(reference).rpartition("function:")[2]


def _asynchronous(stack: Stack) -> Iterator[tuple[str, tuple[dict[str, Any], str]]]:
    for logical_id in stack.of_type(EVENT_INVOKE_CONFIG):
        properties, where = stack.properties(logical_id)
        if properties.get("DestinationConfig"):
            raise TemplateError("the local cloud has no destinations", where=f"{where}.DestinationConfig")
        yield function_name(properties.get("FunctionName")), (properties, where)


def _code(folder: Path, code: Any, where: str) -> tuple[Path, str | None]:
    """The folder with the code; or the template's own and the code, if that is in the template."""
    if isinstance(code, dict) and set(code) == {"ZipFile"}:
        return folder, str(code["ZipFile"])
    place = code
    if isinstance(code, dict) and code.get("S3Bucket") == LOCAL_CODE:
        place = code.get("S3Key")
    if not isinstance(place, str):
        shown = ", ".join(place) if isinstance(place, dict) else place
        raise TemplateError(
            "only a folder beside the template (CodeUri, or Code as text) and ZipFile can run locally, not "
            f"{shown}",
            where=where,
        )
    task_root = (folder / place).resolve()
    if not task_root.is_dir():
        raise TemplateError(f"{place!r} is no directory beside the template", where=where)
    return task_root, None


def _handler(properties: Mapping[str, Any], inline: bool, where: str) -> str:
    handler = properties.get("Handler")
    if not isinstance(handler, str) or "." not in handler:
        raise TemplateError(f"Handler must be module.function, not {handler!r}", where=where)
    if inline and handler.partition(".")[0] != _INLINE_MODULE:
        raise TemplateError(f"Handler of ZipFile must be index.function, not {handler!r}", where=where)
    return handler


def _runtime(properties: Mapping[str, Any], where: str) -> str:
    runtime = properties.get("Runtime")
    if not str(runtime).startswith("python"):
        raise TemplateError(f"the local cloud runs Python only, not {runtime}", where=f"{where}.Runtime")
    return str(runtime)


def _variable(value: Any, where: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    raise TemplateError(f"an environment variable must be text, not {value!r}", where=where)


def _document(properties: Any, where: str) -> Any:
    if not isinstance(properties, dict) or "PolicyDocument" not in properties:
        raise TemplateError("a policy needs a PolicyDocument", where=where)
    return properties["PolicyDocument"]


def _attached_policies(stack: Stack) -> list[tuple[str, str | None, Any]]:
    """Policies that name roles: the role's name, a managed policy's logical id or None, the document."""
    found: list[tuple[str, str | None, Any]] = []
    for kind in (POLICY, ROLE_POLICY, MANAGED_POLICY):
        for logical_id in stack.of_type(kind):
            properties, where = stack.properties(logical_id)
            document = _document(properties, where)
            roles = [properties.get("RoleName")] if kind == ROLE_POLICY else properties.get("Roles") or []
            managed = logical_id if kind == MANAGED_POLICY else None
            found += [(str(role), managed, document) for role in roles]
    return found


def _boundary(stack: Stack, logical_id: str, elsewhere: Mapping[str, Any]) -> Any:
    properties, where = stack.properties(logical_id)
    arn = properties.get("PermissionsBoundary")
    if arn is None:
        return None
    if arn in elsewhere:
        return elsewhere[arn]
    for name in stack.of_type(MANAGED_POLICY):
        if stack.ref(name) == arn:
            return _document(*stack.properties(name))
    raise TemplateError(
        f"{arn!r} is no policy of this template, so nobody here knows what it allows; give its document "
        "(policies={ARN: document})",
        where=f"{where}.PermissionsBoundary",
    )


def _role(
    stack: Stack,
    logical_id: str,
    attached: list[tuple[str, str | None, Any]],
    elsewhere: Mapping[str, Any],
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Its inline policies, and its managed ones by logical id; those of AWS among the former, as ARNs."""
    properties, where = stack.properties(logical_id)
    mine = [(managed, document) for role, managed, document in attached if role == stack.name(logical_id)]
    ours = {stack.ref(name): name for name in stack.of_type(MANAGED_POLICY)}
    arns = properties.get("ManagedPolicyArns") or []
    managed = {
        name: _document(*stack.properties(name)) for name in (ours[arn] for arn in arns if arn in ours)
    }
    managed |= {arn: elsewhere[arn] for arn in arns if arn in elsewhere}
    managed |= {name: document for name, document in mine if name is not None}
    documents = [_document(policy, f"{where}.Policies") for policy in properties.get("Policies") or []]
    documents += [document for name, document in mine if name is None]
    return (*documents, *(arn for arn in arns if arn not in ours and arn not in elsewhere)), managed
