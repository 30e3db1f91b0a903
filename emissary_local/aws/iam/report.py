"""What the local cloud tells its user about permissions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Denial:
    """One refused call.

    Attributes:
        function: Logical id of the function that made it.
        action: Such as ``dynamodb:GetItem``.
        resource: The resource's ARN.
        message: Why, in words.
    """

    function: str
    action: str
    resource: str
    message: str


@dataclass(frozen=True, slots=True)
class Permission:
    """One statement of a function's policies, and its use so far.

    Attributes:
        function: Logical id of the function.
        name: The statement's Sid, or ``#<n>``.
        policy: The policy it is in; the logical id of a managed one.
        effect: ``Allow`` or ``Deny``.
        actions: Each of its actions -> on how many calls it has decided.
        resources: The same of its resources.
    """

    function: str
    name: str
    policy: str
    effect: str
    actions: Mapping[str, int]
    resources: Mapping[str, int]

    @property
    def unused(self) -> list[str]:
        """Its actions and resources that no call has needed yet."""
        return [text for text, uses in [*self.actions.items(), *self.resources.items()] if not uses]
