"""Conditions of policy statements, as far as the local cloud can evaluate them.

Source: IAM User Guide, "IAM JSON policy elements: Condition operators"; Lambda Developer Guide, "Using source
function ARN to control function access behavior".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from emissary_local.errors import TemplateError
from emissary_local.template.patterns import ArnPattern, Wildcard

#: In each call that a function's code makes; not in those that Lambda itself makes with the function's role.
SOURCE_FUNCTION: Final = "lambda:SourceFunctionArn"

_KEYS: Final = {SOURCE_FUNCTION.lower(): SOURCE_FUNCTION}


def _equal(wanted: str, value: str) -> bool:
    return wanted == value


def _like(wanted: str, value: str) -> bool:
    return Wildcard(wanted).matches(value)


def _arn_like(wanted: str, value: str) -> bool:
    return ArnPattern(wanted).matches(value)


#: Operator -> (comparison, whether it is negated). ArnEquals takes wildcards just as ArnLike does.
_OPERATORS: Final[Mapping[str, tuple[Callable[[str, str], bool], bool]]] = {
    "StringEquals": (_equal, False),
    "StringNotEquals": (_equal, True),
    "StringLike": (_like, False),
    "StringNotLike": (_like, True),
    "ArnEquals": (_arn_like, False),
    "ArnLike": (_arn_like, False),
    "ArnNotEquals": (_arn_like, True),
    "ArnNotLike": (_arn_like, True),
}


@dataclass(frozen=True, slots=True)
class Condition:
    """One operator on one key; a statement applies if all of its conditions hold.

    Attributes:
        operator: Such as ``ArnLike``.
        key: The condition key.
        values: What it is compared with; one match is enough.
    """

    operator: str
    key: str
    values: tuple[str, ...]

    def holds(self, context: Mapping[str, str]) -> bool:
        """Whether it holds for a call with these condition keys."""
        compare, negated = _OPERATORS[self.operator]
        if self.key not in context:
            return negated
        return any(compare(value, context[self.key]) for value in self.values) is not negated


def read_conditions(block: Any, where: str) -> tuple[Condition, ...]:
    """Read the ``Condition`` block of a statement.

    Raises:
        TemplateError: If it is malformed, or has an operator or key that the local cloud cannot evaluate.
    """
    if not isinstance(block, dict) or not all(isinstance(keys, dict) for keys in block.values()):
        raise TemplateError("a Condition is a mapping of operators to keys", where=where)
    return tuple(
        _condition(operator, key, wanted, f"{where}.{operator}")
        for operator, keys in block.items()
        for key, wanted in keys.items()
    )


def _condition(operator: str, key: str, wanted: Any, where: str) -> Condition:
    if operator not in _OPERATORS:
        raise _unknown("operator", operator, list(_OPERATORS), where)
    if str(key).lower() not in _KEYS:
        raise _unknown("key", key, list(_KEYS.values()), where)
    values = wanted if isinstance(wanted, list) else [wanted]
    if not values or not all(isinstance(value, str) and "${" not in value for value in values):
        raise TemplateError(f"{key} must be compared with text without policy variables", where=where)
    if operator.startswith("Arn"):
        for value in values:
            try:
                ArnPattern(value)
            except ValueError as exc:
                raise TemplateError(str(exc), where=where) from exc
    return Condition(operator, _KEYS[key.lower()], tuple(values))


def _unknown(what: str, name: str, known: list[str], where: str) -> TemplateError:
    return TemplateError(
        f"the local cloud cannot evaluate the condition {what} {name} (it knows: {', '.join(known)})",
        where=where,
    )
