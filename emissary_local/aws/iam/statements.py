"""Reads the policy documents of a function into statements that can be evaluated.

What cannot be evaluated is refused when the local cloud starts, by name and place: a policy that means more
or less here than it does on AWS would prove nothing.

Source: IAM User Guide, "Grammar of the IAM JSON policy language"; AWS SAM Developer Guide, "Policies".
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from emissary_local.aws.iam.conditions import Condition, read_conditions
from emissary_local.errors import TemplateError
from emissary_local.template.patterns import ArnPattern, Wildcard

_KNOWN: Final = frozenset({"Sid", "Effect", "Action", "NotAction", "Resource", "NotResource", "Condition"})
_SID: Final = re.compile(r"[A-Za-z0-9]*")
_ACTION: Final = re.compile(r"\*|[a-z0-9-]+:[A-Za-z0-9*?]+", re.IGNORECASE)

#: AWS's managed policies for what Lambda itself does for a function: its log, its network, its traces. They
#: allow nothing that the local cloud has.
FOR_LAMBDA_ITSELF: Final = frozenset(
    {"AWSLambdaBasicExecutionRole", "AWSLambdaVPCAccessExecutionRole", "AWSXRayDaemonWriteAccess"}
)


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement of one function's policies.

    Attributes:
        function: The function's logical id.
        name: Its Sid, or ``#<n>``; where a function has two of one name, ``<policy>.<name>``.
        policy: The name of the policy it is in; the logical id of a managed one.
        allows: Whether its effect is Allow.
        actions: Patterns of ``Action`` or, with ``not_actions``, of ``NotAction``.
        resources: Patterns of ``Resource`` or, with ``not_resources``, of ``NotResource``.
        conditions: All of them must hold.
    """

    function: str
    name: str
    policy: str
    allows: bool
    actions: tuple[Wildcard, ...]
    resources: tuple[ArnPattern, ...]
    not_actions: bool = False
    not_resources: bool = False
    conditions: tuple[Condition, ...] = ()

    def is_about(self, action: str) -> bool:
        """Whether it speaks of ``action``, on whatever resource."""
        return any(pattern.matches(action) for pattern in self.actions) is not self.not_actions

    def applies(self, action: str, resource: str, context: Mapping[str, str]) -> bool:
        """Whether it decides on ``action`` on the ARN ``resource``, in a call with these condition keys."""
        return (
            self.is_about(action)
            and any(pattern.matches(resource) for pattern in self.resources) is not self.not_resources
            and all(condition.holds(context) for condition in self.conditions)
        )


def read_statements(
    function: str, inline: Sequence[Any], managed: Mapping[str, Any], where: str
) -> tuple[Statement, ...]:
    """Read all policies of one function.

    Args:
        function: Its logical id.
        inline: Policy documents; also the other forms in templates: names and ARNs of AWS's managed policies,
            and SAM's policy templates.
        managed: Policy documents of the template's managed policies that it has, by logical id.
        where: Its place in the template.

    Raises:
        TemplateError: If something in them is malformed or cannot be evaluated.
    """
    documents = [(f"Policies[{index}]", policy) for index, policy in enumerate(inline)] + list(
        managed.items()
    )
    statements = [
        statement
        for name, document in documents
        for statement in _document(function, name, document, f"{where}.{name}")
    ]
    return _tell_apart(statements)


def _tell_apart(statements: Iterable[Statement]) -> tuple[Statement, ...]:
    statements = tuple(statements)
    counted = Counter(each.name for each in statements)
    return tuple(
        each if counted[each.name] == 1 else dataclasses.replace(each, name=f"{each.policy}.{each.name}")
        for each in statements
    )


def _document(function: str, policy: str, document: Any, where: str) -> list[Statement]:
    if isinstance(document, str):
        if document.rpartition("/")[2] in FOR_LAMBDA_ITSELF:
            return []
        raise TemplateError(
            f"the local cloud does not know what the managed policy {document} allows; give its document "
            "(policies={ARN: document}), or write its statements",
            where=where,
        )
    if not isinstance(document, dict) or "Statement" not in document:
        shown = ", ".join(map(str, document)) if isinstance(document, dict) else repr(document)
        raise TemplateError(
            f"the local cloud does not expand policy templates ({shown}); write a Statement", where=where
        )
    given = document["Statement"]
    listed = given if isinstance(given, list) else [given]
    found = []
    for index, statement in enumerate(listed):
        found.append(_statement(function, policy, index, statement, f"{where}.Statement[{index}]"))
    return found


def _statement(function: str, policy: str, index: int, given: Any, where: str) -> Statement:
    if not isinstance(given, dict):
        raise TemplateError(f"a statement is a mapping, not {given!r}", where=where)
    if unknown := sorted(set(given) - _KNOWN):
        raise TemplateError(
            f"a statement has no {', '.join(unknown)} in a role's policy (not as far as is known here)",
            where=where,
        )
    sid = given.get("Sid", "")
    if not isinstance(sid, str) or not _SID.fullmatch(sid):
        raise TemplateError(f"Sid must be letters and digits, not {sid!r}", where=where)
    if given.get("Effect") not in ("Allow", "Deny"):
        raise TemplateError(f"Effect must be Allow or Deny, not {given.get('Effect')!r}", where=where)
    actions, not_actions = _one_of(given, "Action", "NotAction", where)
    resources, not_resources = _one_of(given, "Resource", "NotResource", where)
    for action in actions:
        if not _ACTION.fullmatch(action):
            raise TemplateError(f"{action!r} is no action, such as dynamodb:GetItem", where=where)
    try:
        patterns = tuple(ArnPattern(resource) for resource in resources)
    except ValueError as exc:
        raise TemplateError(str(exc), where=where) from exc
    return Statement(
        function=function,
        name=sid or f"#{index + 1}",
        policy=policy,
        allows=given["Effect"] == "Allow",
        actions=tuple(Wildcard(action, ignore_case=True) for action in actions),
        resources=patterns,
        not_actions=not_actions,
        not_resources=not_resources,
        conditions=read_conditions(given.get("Condition", {}), f"{where}.Condition"),
    )


def _one_of(given: Mapping[str, Any], plain: str, negated: str, where: str) -> tuple[list[str], bool]:
    """The texts of ``Action`` or ``NotAction``, and whether it is the negated one."""
    if (plain in given) == (negated in given):
        raise TemplateError(f"a statement has either {plain} or {negated}", where=where)
    name = plain if plain in given else negated
    texts = given[name] if isinstance(given[name], list) else [given[name]]
    if not texts or not all(isinstance(text, str) and text for text in texts):
        raise TemplateError(f"{name} must be one or more texts, not {given[name]!r}", where=where)
    for text in texts:
        if "${" in text:
            raise TemplateError(f"the local cloud cannot evaluate policy variables: {text}", where=where)
    return texts, name == negated
