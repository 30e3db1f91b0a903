"""Physical names, ARNs and parameter values: what CloudFormation would have made up at deployment."""

from __future__ import annotations

import hashlib
import operator
import re
from collections.abc import Mapping
from typing import Any, Final

from emissary_local.errors import TemplateError
from emissary_local.template.intrinsics import NO_VALUE

REGION: Final = "us-east-1"
#: The account id AWS uses in its own documentation; it is nobody's.
ACCOUNT_ID: Final = "123456789012"
STACK_NAME: Final = "emissary-local"

PSEUDO_PARAMETERS: Final[Mapping[str, Any]] = {
    "AWS::AccountId": ACCOUNT_ID,
    "AWS::NotificationARNs": [],
    "AWS::Partition": "aws",
    "AWS::Region": REGION,
    "AWS::StackId": f"arn:aws:cloudformation:{REGION}:{ACCOUNT_ID}:stack/{STACK_NAME}/local",
    "AWS::StackName": STACK_NAME,
    "AWS::URLSuffix": "amazonaws.com",
}

#: Property of a resource that holds the name its author chose, by type.
_NAME_PROPERTIES: Final[Mapping[str, str]] = {
    "AWS::Lambda::Function": "FunctionName",
    "AWS::ApiGatewayV2::DomainName": "DomainName",
    "AWS::ApiGatewayV2::Stage": "StageName",
    "AWS::DynamoDB::Table": "TableName",
    "AWS::SecretsManager::Secret": "Name",
    "AWS::Logs::LogGroup": "LogGroupName",
    "AWS::SQS::Queue": "QueueName",
    "AWS::SNS::Topic": "TopicName",
    "AWS::IAM::Role": "RoleName",
    "AWS::IAM::ManagedPolicy": "ManagedPolicyName",
}

#: Form of a resource's ARN, by type; what follows the account id.
_ARNS: Final[Mapping[str, str]] = {
    "AWS::Lambda::Function": "lambda:{region}:{account}:function:{name}",
    "AWS::DynamoDB::Table": "dynamodb:{region}:{account}:table/{name}",
    "AWS::SecretsManager::Secret": "secretsmanager:{region}:{account}:secret:{name}-AbCdEf",
    "AWS::Logs::LogGroup": "logs:{region}:{account}:log-group:{name}:*",
    "AWS::SQS::Queue": "sqs:{region}:{account}:{name}",
    "AWS::SNS::Topic": "sns:{region}:{account}:{name}",
    "AWS::IAM::Role": "iam::{account}:role/{name}",
    "AWS::IAM::ManagedPolicy": "iam::{account}:policy/{name}",
    "AWS::KMS::Key": "kms:{region}:{account}:key/{name}",
}

#: The types of API Gateway's parts: their ``!Ref`` is an id, and so is an attribute such as ``ApiId``.
_API: Final = "AWS::ApiGatewayV2::"

#: Types whose ``!Ref`` is the ARN, not the name.
_REF_IS_ARN: Final = frozenset({"AWS::IAM::ManagedPolicy", "AWS::SecretsManager::Secret", "AWS::SNS::Topic"})

#: Prefix of made-up ids, by what the type's name ends in (``AWS::EC2::Subnet``, ``AWS::EC2::Subnet::Id``).
_ID_PREFIXES: Final[Mapping[str, str]] = {
    "Subnet": "subnet",
    "SecurityGroup": "sg",
    "VPC": "vpc",
    "RouteTable": "rtb",
}


def made_up_id(prefix: str, seed: str) -> str:
    """A well-formed id such as ``subnet-0f3c...`` (17 hex digits), the same for the same seed."""
    return f"{prefix}-0{hashlib.sha256(seed.encode()).hexdigest()[:16]}"


def api_id(logical_id: str) -> str:
    """An API Gateway id: ten lower-case letters and digits, the same for the same logical id."""
    return hashlib.sha256(logical_id.encode()).hexdigest()[:10]


def physical_name(logical_id: str, resource_type: str, chosen: Any) -> str:
    """The resource's own name: the one its author has chosen, else one built as CloudFormation builds it."""
    if chosen is not None and chosen is not NO_VALUE:
        return str(chosen)
    if resource_type.startswith(_API):
        return api_id(logical_id)
    kind = resource_type.rsplit("::", 1)[-1]
    if kind in _ID_PREFIXES:
        return made_up_id(_ID_PREFIXES[kind], logical_id)
    suffix = hashlib.sha256(logical_id.encode()).hexdigest()[:12].upper()
    return f"{STACK_NAME}-{logical_id}-{suffix}"


def name_property(resource_type: str) -> str:
    """The property in which an author may choose the name of a resource of this type; or empty."""
    return _NAME_PROPERTIES.get(resource_type, "")


def reference(resource_type: str, name: str) -> str:
    """Value of ``!Ref`` for a resource of this type and physical name."""
    return attribute(resource_type, name, "Arn") if resource_type in _REF_IS_ARN else name


def attribute(resource_type: str, name: str, wanted: str) -> str:
    """Value of ``!GetAtt`` for a resource of this type and physical name.

    Raises:
        KeyError: If the local cloud does not know this attribute of this type.
    """
    if wanted == "Arn":
        return "arn:aws:" + _ARNS[resource_type].format(region=REGION, account=ACCOUNT_ID, name=name)
    if resource_type == "AWS::SecretsManager::Secret" and wanted == "Id":
        return attribute(resource_type, name, "Arn")
    if resource_type == "AWS::IAM::ManagedPolicy" and wanted == "PolicyArn":
        return attribute(resource_type, name, "Arn")
    if resource_type == "AWS::EC2::SecurityGroup" and wanted in ("GroupId", "Id"):
        return name
    if resource_type == "AWS::ApiGatewayV2::Api" and wanted == "ApiEndpoint":
        return f"wss://{name}.execute-api.{REGION}.amazonaws.com"
    if resource_type.startswith(_API) and wanted == resource_type.removeprefix(_API) + "Id":
        return name
    raise KeyError(wanted)


def parameter_values(declared: Mapping[str, Any], given: Mapping[str, str]) -> dict[str, Any]:
    """The value of every parameter of a template: given, default, or made up for network ids.

    Args:
        declared: The template's ``Parameters`` section.
        given: Values from the user, as text.

    Returns:
        name -> text, or a list of texts for the list types.

    Raises:
        TemplateError: If one is given but not declared, has no value at all, or breaks a constraint of its
            own; all such faults are named at once.
    """
    faults = [f"the template has no parameter {name!r}" for name in given if name not in declared]
    values: dict[str, Any] = {}
    for name, spec in declared.items():
        kind = str(spec.get("Type", "String"))
        if kind.startswith("AWS::SSM::"):
            faults.append(f"the parameter {name!r} would be looked up in an account; make it a String")
            continue
        if name in given:
            text = str(given[name])
        elif "Default" in spec:
            default = spec["Default"]
            text = str(default).lower() if isinstance(default, bool) else str(default)
        elif (made_up := _made_up_value(name, kind)) is not None:
            text = made_up
        else:
            faults.append(f"the parameter {name!r} has no default; give it a value (parameters={{...}})")
            continue
        if fault := _broken_constraint(spec, text, numeric=kind == "Number"):
            shown = "its value" if spec.get("NoEcho") else repr(text)
            meant = f" (want {spec['ConstraintDescription']})" if "ConstraintDescription" in spec else ""
            faults.append(f"the parameter {name!r}: {shown} {fault}{meant}")
        is_list = kind.startswith("List<") or kind == "CommaDelimitedList"
        values[name] = [item.strip() for item in text.split(",") if item.strip()] if is_list else text
    if faults:
        raise TemplateError("; ".join(faults), where="Parameters")
    return values


def _broken_constraint(spec: Mapping[str, Any], text: str, *, numeric: bool) -> str | None:
    """Which of a parameter's constraints its value breaks, or None."""
    allowed = [str(value) for value in spec.get("AllowedValues", [])]
    if allowed and text not in allowed:
        return f"is none of: {', '.join(allowed)}"
    pattern = spec.get("AllowedPattern")
    if pattern and not re.fullmatch(pattern, text):
        return f"does not match {pattern}"
    size: float = len(text)
    bounds = "MinLength", "MaxLength"
    if numeric:
        try:
            size = float(text)
        except ValueError:
            return "is no number"
        bounds = "MinValue", "MaxValue"
    for bound, breaks in zip(bounds, (operator.lt, operator.gt), strict=True):
        if bound in spec and breaks(size, float(spec[bound])):
            return f"breaks its {bound} of {spec[bound]}"
    return None


def _made_up_value(name: str, kind: str) -> str | None:
    match = re.fullmatch(r"(?:List<)?AWS::EC2::(\w+)::Id>?", kind)
    if match is None or match.group(1) not in _ID_PREFIXES:
        return None
    prefix = _ID_PREFIXES[match.group(1)]
    count = 2 if kind.startswith("List<") else 1
    return ",".join(made_up_id(prefix, f"{name}{index}") for index in range(count))
