"""Decides whether a function may make a call, and keeps count: which statements are used, what was refused.

Source: IAM User Guide, "Policy evaluation logic": refused unless a statement allows it and none denies it;
"Permissions boundaries for IAM entities": refused as well unless the boundary, if there is one, does too.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from emissary_local.aws.iam.conditions import SOURCE_FUNCTION
from emissary_local.aws.iam.report import Denial, Permission
from emissary_local.aws.iam.statements import Statement, read_statements
from emissary_local.errors import LocalCloudError

if TYPE_CHECKING:
    from emissary_local.template.specs import FunctionSpec

#: Identity of whoever looks on from outside, as the account's administrator: may do everything. It cannot be
#: the logical id of a function.
OPERATOR: Final = "the operator"

#: How many refused calls are kept, the latest ones.
DENIALS_KEPT: Final = 1000


class Privileges:
    """The policies of all functions.

    Args:
        functions: The functions, with their policies.
        template: Name of the template's file, for messages.
        report: Told of the first refusal of each action to each function, in words.

    Raises:
        TemplateError: If a policy cannot be evaluated.

    Thread safety: none; use it on one event loop.
    """

    def __init__(
        self,
        functions: Iterable[FunctionSpec],
        template: str = "template.yaml",
        report: Callable[[str], None] | None = None,
    ) -> None:
        self._template = template
        self._report = report
        self._statements: dict[str, tuple[Statement, ...]] = {}
        self._boundaries: dict[str, tuple[Statement, ...]] = {}
        self._contexts: dict[str, dict[str, str]] = {}
        self._withdrawn: set[Statement] = set()
        self._uses: dict[Statement, Counter[tuple[str, str]]] = {}
        self.replace(functions)
        self._denials: deque[Denial] = deque(maxlen=DENIALS_KEPT)
        self._reported: set[tuple[str, str]] = set()

    def replace(self, functions: Iterable[FunctionSpec]) -> None:
        """Give functions other policies, for calls from now on, also of what runs already.

        What is withdrawn of theirs is so no more; statements that stay as they are keep their counts.

        Raises:
            TemplateError: If a policy cannot be evaluated; then nothing is changed.
        """
        statements, boundaries, contexts = {}, {}, {}
        for spec in functions:
            name = spec.logical_id
            where = f"policies of {name}"
            statements[name] = read_statements(name, spec.policies, spec.managed_policies, where)
            if spec.boundary is not None:
                where = f"permissions boundary of {name}"
                boundaries[name] = read_statements(name, (spec.boundary,), {}, where)
            contexts[name] = {SOURCE_FUNCTION: spec.arn}
        kept = {name: bound for name, bound in self._boundaries.items() if name not in statements}
        self._boundaries = {**kept, **boundaries}
        self._withdrawn = {each for each in self._withdrawn if each.function not in statements}
        self._statements |= statements
        self._contexts |= contexts
        self._uses = {
            each: self._uses.get(each, Counter()) for every in self._statements.values() for each in every
        }

    def refusal(self, identity: str, action: str, resource: str) -> str | None:
        """Decide on one call.

        Args:
            identity: Logical id of the function that signed it, or :data:`OPERATOR`.
            action: Such as ``dynamodb:GetItem``.
            resource: The resource's ARN; ``*`` for an action that knows none.

        Returns:
            None if it is allowed; else why not, naming function, action, resource and what is missing.
        """
        if identity == OPERATOR:
            return None
        context = self._contexts.get(identity, {})
        applying = [
            each for each in self._statements.get(identity, ()) if each.applies(action, resource, context)
        ]
        in_force = [each for each in applying if each not in self._withdrawn]
        denying = [each for each in in_force if not each.allows]
        if in_force and not denying:
            if (bounded := self._out_of_bounds(identity, action, resource)) is not None:
                return self._tell(identity, action, resource, bounded)
            for each in in_force:
                self._count(each, action, resource)
            return None
        for each in denying:
            self._count(each, action, resource)
        return self._refuse(identity, action, resource, applying, denying)

    def _out_of_bounds(self, identity: str, action: str, resource: str) -> str | None:
        """Why the permissions boundary has a call refused that the policies allow; None if it has not."""
        if identity not in self._boundaries:
            return None
        context = self._contexts[identity]
        applying = [each for each in self._boundaries[identity] if each.applies(action, resource, context)]
        for each in applying:
            if not each.allows:
                return f"the statement {each.name} of its permissions boundary denies it"
        return None if applying else "its policies do, but its permissions boundary does not allow it"

    def withdraw(self, function: str, name: str) -> None:
        """Take a statement away, as if the template had never had it, until :meth:`restore`.

        Raises:
            LocalCloudError: If the function has no statement of that name.
        """
        found = [each for each in self._statements.get(function, ()) if each.name == name]
        if not found:
            known = ", ".join(f"{each.function}.{each.name}" for each in self._uses)
            raise LocalCloudError(f"no policy has a statement {function}.{name}; there are: {known}")
        self._withdrawn.update(found)

    def restore(self) -> None:
        """Put every statement back."""
        self._withdrawn.clear()

    def permissions(self) -> list[Permission]:
        """Every statement, and how often each part of it has decided on a call so far."""
        return [_permission(each, counted) for each, counted in self._uses.items()]

    def denials(self) -> list[Denial]:
        """The refused calls so far, the latest :data:`DENIALS_KEPT` of them."""
        return list(self._denials)

    def _count(self, statement: Statement, action: str, resource: str) -> None:
        actions = ["*"] if statement.not_actions else [p.text for p in statement.actions if p.matches(action)]
        resources = (
            ["*"] if statement.not_resources else [p.text for p in statement.resources if p.matches(resource)]
        )
        for pair in ((first, second) for first in actions for second in resources):
            self._uses[statement][pair] += 1

    def _refuse(
        self, identity: str, action: str, resource: str, applying: list[Statement], denying: list[Statement]
    ) -> str:
        reason = f"no statement of its policies in {self._template} allows it"
        wanted = json.dumps({"Effect": "Allow", "Action": action, "Resource": resource})
        if denying:
            reason = f"the statement {denying[0].name} of its policies in {self._template} denies it"
        elif lost := [each.name for each in applying if each.allows]:
            reason += f"; {lost[0]} would, but is withdrawn"
        elif near := [
            each
            for each in self._statements.get(identity, ())
            if each.allows and each.is_about(action) and each not in self._withdrawn
        ]:
            only = ", ".join(pattern.text for pattern in near[0].resources)
            reason += f"; {near[0].name} allows the action, but on {only}"
        else:
            reason += f"; this one would: {wanted}"
        return self._tell(identity, action, resource, reason)

    def _tell(self, identity: str, action: str, resource: str, reason: str) -> str:
        message = f"{identity} may not {action} on {resource}: {reason}"
        self._denials.append(Denial(identity, action, resource, message))
        if self._report is not None and (identity, action) not in self._reported:
            self._reported.add((identity, action))
            self._report(message)
        return message


def _permission(statement: Statement, counted: Mapping[tuple[str, str], int]) -> Permission:
    actions: Counter[str] = Counter({pattern.text: 0 for pattern in statement.actions})
    resources: Counter[str] = Counter({pattern.text: 0 for pattern in statement.resources})
    for (action, resource), count in counted.items():
        actions[action] += count
        resources[resource] += count
    return Permission(
        statement.function,
        statement.name,
        statement.policy,
        "Allow" if statement.allows else "Deny",
        dict(actions),
        dict(resources),
    )


def as_json(values: Iterable[Denial | Permission]) -> list[dict[str, Any]]:
    """Plain values for the pipe."""
    return [{name: getattr(value, name) for name in type(value).__slots__} for value in values]
