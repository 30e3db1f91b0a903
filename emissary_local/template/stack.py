"""A stack as CloudFormation would make it of a template: which resources exist, and what references mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from emissary_local.errors import TemplateError
from emissary_local.template import names
from emissary_local.template.intrinsics import Resolver
from emissary_local.template.resources import READ, is_passed_over
from emissary_local.template.rules import check_rules


class Stack:
    """The resources of one template, with the values that its parameters have.

    Args:
        path: The template's file, for messages and for folders beside it.
        document: The template, translated if it was one of SAM's.
        given: Parameter values; the rest take their defaults.

    Raises:
        TemplateError: If parameters or rules do not hold, or a resource is of a type that is not known.
    """

    def __init__(self, path: Path, document: Mapping[str, Any], given: Mapping[str, str]) -> None:
        self.path = path
        self._parameters = names.parameter_values(document.get("Parameters") or {}, given)
        self._resources: Mapping[str, Any] = document.get("Resources") or {}
        self._resolver = Resolver(document, ref=self.ref, attribute=self.attribute)
        check_rules(document.get("Rules") or {}, self._resolver)
        self._types = dict(self._existing())

    def _existing(self) -> Iterator[tuple[str, str]]:
        for logical_id, resource in self._resources.items():
            where = f"Resources.{logical_id}"
            if not isinstance(resource, dict) or not isinstance(resource.get("Type"), str):
                raise TemplateError("a resource needs a Type", where=where)
            condition, kind = resource.get("Condition"), resource["Type"]
            if condition is not None and not self._resolver.condition(condition, where):
                continue
            if kind not in READ and not is_passed_over(kind):
                raise TemplateError(
                    f"the local cloud does not know {kind}; it runs {', '.join(READ)}, and passes over what "
                    "changes nothing for a run, such as alarms",
                    where=where,
                )
            yield logical_id, kind

    def of_type(self, wanted: str) -> list[str]:
        """Logical ids of the resources of a type, in the template's order."""
        return [logical_id for logical_id, kind in self._types.items() if kind == wanted]

    def properties(self, logical_id: str) -> tuple[dict[str, Any], str]:
        """A resource's properties, resolved, and their place; without those that change nothing here.

        Raises:
            TemplateError: If there is one that is not known, or has a value that is not.
        """
        where = f"Resources.{logical_id}.Properties"
        kind = self._types[logical_id]
        known, own = READ[kind], self._resources[logical_id].get("Properties") or {}
        allowed = known.read | known.only.keys()
        for name in own:
            if name not in allowed | known.ignored:
                raise TemplateError(
                    f"the local cloud does not know this property of {kind}; it acts on "
                    f"{', '.join(sorted(allowed))}",
                    where=f"{where}.{name}",
                )
        resolved = self._resolver.resolve({key: own[key] for key in own if key in allowed}, where)
        for name, values in known.only.items():
            if name in resolved and str(resolved[name]).lower() not in map(str.lower, values):
                raise TemplateError(
                    f"the local cloud knows no {resolved[name]!r} here, only: {', '.join(values)}",
                    where=f"{where}.{name}",
                )
        return resolved, where

    def passed_over(self, logical_id: str, name: str) -> Any:
        """A property that changes nothing for a run, resolved; None if there is none.

        Raises:
            TemplateError: If there is something in it that only an account knows.
        """
        own = self._resources[logical_id].get("Properties") or {}
        where = f"Resources.{logical_id}.Properties"
        return self._resolver.resolve({name: own[name]}, where).get(name) if name in own else None

    def value(self, logical_id: str, name: str) -> Any:
        """One property of a resource, resolved; None if it has none of that name."""
        own = self._resources[logical_id].get("Properties") or {}
        return self._resolver.resolve(own.get(name), f"Resources.{logical_id}.Properties.{name}")

    def name(self, logical_id: str) -> str:
        """A resource's physical name."""
        kind = self._resources[logical_id]["Type"]
        return names.physical_name(logical_id, kind, self.value(logical_id, names.name_property(kind)))

    def ref(self, name: str) -> Any:
        """Value of ``!Ref name``; raises ``KeyError`` for an unknown one."""
        if name in self._parameters:
            return self._parameters[name]
        if name in names.PSEUDO_PARAMETERS:
            return names.PSEUDO_PARAMETERS[name]
        return names.reference(self._resources[name]["Type"], self.name(name))

    def attribute(self, logical_id: str, attribute: str) -> Any:
        """Value of ``!GetAtt logical_id.attribute``; raises ``KeyError`` for an unknown one."""
        return names.attribute(self._resources[logical_id]["Type"], self.name(logical_id), attribute)


def number(value: Any, where: str) -> float:
    """A number, which templates may write as text.

    Raises:
        TemplateError: If it is none.
    """
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TemplateError(f"{value!r} is no number", where=where) from None
