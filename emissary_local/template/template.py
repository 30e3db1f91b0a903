"""Reads a template, SAM's or CloudFormation's: the functions, the WebSocket API, the tables and the secrets.

A template is read in three steps: SAM's translator makes plain resources of it (:mod:`.sam`), intrinsic
functions are resolved to local values (:mod:`.stack`), and each resource that runs is read. What is known
stands in :mod:`.resources`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from emissary_local.errors import TemplateError
from emissary_local.template.api import read_api
from emissary_local.template.functions import read_functions
from emissary_local.template.resources import SECRET, TABLE
from emissary_local.template.sam import load_and_translate
from emissary_local.template.secrets import read_secret
from emissary_local.template.specs import TableSpec, Template
from emissary_local.template.stack import Stack, number

#: Properties of a table that are arguments of CreateTable.
_CREATE_TABLE: Final = (
    "KeySchema", "AttributeDefinitions", "BillingMode", "ProvisionedThroughput", "GlobalSecondaryIndexes",
    "LocalSecondaryIndexes",
)  # fmt: skip

_CAPACITIES: Final = frozenset({"ReadCapacityUnits", "WriteCapacityUnits"})


def read_template(
    path: str | Path,
    parameters: Mapping[str, str] | None = None,
    policies: Mapping[str, Any] | None = None,
) -> Template:
    """Read and resolve a template.

    Args:
        path: The template file; relative ``CodeUri`` values start at its directory.
        parameters: Parameter values; the rest take their defaults.
        policies: By ARN, documents of managed policies that the template does not make.

    Raises:
        TemplateError: If the file cannot be read or something in it cannot be run; says where.
        LocalCloudError: If SAM's translator breaks.
    """
    return read_document(path, load_and_translate(path), parameters, policies)


def read_document(
    path: str | Path,
    document: Mapping[str, Any],
    parameters: Mapping[str, str] | None = None,
    policies: Mapping[str, Any] | None = None,
) -> Template:
    """As :func:`read_template`, of a document as :func:`.sam.load_and_translate` gives it."""
    file = Path(path).resolve()
    stack = Stack(file, document, parameters or {})
    functions = read_functions(stack, policies or {})
    return Template(
        file,
        functions,
        read_api(stack, functions),
        {name: _table(stack, name) for name in stack.of_type(TABLE)},
        {
            name: read_secret(name, stack.name(name), stack.attribute(name, "Arn"), *stack.properties(name))
            for name in stack.of_type(SECRET)
        },
    )


def _table(stack: Stack, logical_id: str) -> TableSpec:
    properties, where = stack.properties(logical_id)
    if not properties.get("KeySchema") or not properties.get("AttributeDefinitions"):
        raise TemplateError("a table needs KeySchema and AttributeDefinitions", where=where)
    name = stack.name(logical_id)
    ttl = properties.get("TimeToLiveSpecification") or {}
    definition = _with_numbers({key: properties[key] for key in _CREATE_TABLE if key in properties})
    if "ProvisionedThroughput" not in definition:
        definition.setdefault("BillingMode", "PAY_PER_REQUEST")
    return TableSpec(
        logical_id, name, {"TableName": name, **definition},
        ttl.get("AttributeName") if ttl.get("Enabled") in (True, "true") else None,
    )  # fmt: skip


def _with_numbers(value: Any) -> Any:
    """The same with capacities as numbers, which are text where they come from parameters."""
    if isinstance(value, list):
        return [_with_numbers(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        key: int(number(each, key)) if key in _CAPACITIES else _with_numbers(each)
        for key, each in value.items()
    }
