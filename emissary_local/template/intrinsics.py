"""CloudFormation's YAML dialect and its intrinsic functions, resolved to local values.

The reader turns every short tag (``!Sub``) into the long form (``{"Fn::Sub": ...}``), so that a template
may use either. What is not known is refused, by name and place: a value quietly left out would only show
up later, as a function that behaves differently than it does on AWS.

Source: AWS CloudFormation User Guide, "Intrinsic function reference" and "Pseudo parameters reference".
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import yaml

from emissary_local.errors import TemplateError

try:  # libyaml, where PyYAML was built with it: a template of a thousand lines in a fifth of the time
    from yaml import CSafeLoader as _SafeLoader
except ImportError:
    from yaml import SafeLoader as _SafeLoader  # type: ignore[assignment]

#: Result of ``!Ref AWS::NoValue``: the property that holds it is left out.
NO_VALUE: Final = object()

#: ``${Name}``, ``${Name.Attribute}`` or ``${AWS::Region}`` in a ``Fn::Sub``; ``${!x}`` is a literal ``${x}``.
_PLACEHOLDER = re.compile(r"\$\{(!?)([^{}]*)\}")


class _Loader(_SafeLoader):
    """SafeLoader that knows CloudFormation's tags, refuses repeated keys and leaves dates as text."""


# ``Version: 2012-10-17`` is a string to CloudFormation; YAML 1.1 would make a date of it.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _construct_tag(loader: _Loader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    value: Any
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        assert isinstance(node, yaml.MappingNode)
        value = loader.construct_mapping(node, deep=True)
    if suffix == "GetAtt" and isinstance(value, str):
        value = value.split(".", 1)
    return {suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}": value}


def _construct_mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if key in seen and key != "<<":
            raise TemplateError(f"line {key_node.start_mark.line + 1}: the key {key!r} is there twice")
        seen.add(key)
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


_Loader.add_multi_constructor("!", _construct_tag)
_Loader.add_constructor("tag:yaml.org,2002:map", _construct_mapping)


def load_yaml(text: str, name: str) -> dict[str, Any]:
    """Parse a template's text; tags become long-form intrinsic functions.

    Args:
        text: The YAML (or JSON) text.
        name: What to call it in an error message, usually its path.

    Raises:
        TemplateError: If it is no YAML, has a key twice, or is not a mapping.
    """
    try:
        document = yaml.load(text, _Loader)
    except yaml.YAMLError as exc:
        raise TemplateError(f"{name} is not valid YAML: {exc}") from exc
    except TemplateError as exc:
        raise TemplateError(f"{name}: {exc}") from exc
    if not isinstance(document, dict):
        raise TemplateError(f"{name} holds no mapping; a template has Resources at its top")
    return document


class Resolver:
    """Replaces intrinsic functions by the values they have in the local cloud.

    Args:
        document: The whole template, for its ``Conditions`` and ``Mappings``.
        ref: Value of ``!Ref name`` for a parameter, pseudo parameter or resource; raises ``KeyError``
            for an unknown name.
        attribute: Value of ``!GetAtt name.attribute``; raises ``KeyError`` for an unknown one.
    """

    def __init__(
        self,
        document: Mapping[str, Any],
        *,
        ref: Callable[[str], Any],
        attribute: Callable[[str, str], Any],
    ) -> None:
        self._conditions: Mapping[str, Any] = document.get("Conditions") or {}
        self._mappings: Mapping[str, Any] = document.get("Mappings") or {}
        self._ref = ref
        self._attribute = attribute
        self._evaluating: list[str] = []

    def resolve(self, value: Any, where: str) -> Any:
        """Return ``value`` with every intrinsic function replaced; ``where`` is its place, for errors.

        Raises:
            TemplateError: For an unknown function, name or attribute, or wrong arguments.
        """
        if isinstance(value, list):
            items = (self.resolve(item, f"{where}[{index}]") for index, item in enumerate(value))
            return [item for item in items if item is not NO_VALUE]
        if not isinstance(value, dict):
            return _not_dynamic(value, where)
        if len(value) == 1:
            (name, argument), *_ = value.items()
            # A ``Condition`` key also occurs in IAM statements; there its value is a mapping.
            if name == "Ref" or (name == "Condition" and isinstance(argument, str)):
                return self._call(name, argument, where)
            if isinstance(name, str) and name.startswith("Fn::"):
                return self._call(name, argument, where)
        resolved = ((key, self.resolve(item, f"{where}.{key}")) for key, item in value.items())
        return {key: item for key, item in resolved if item is not NO_VALUE}

    def condition(self, name: str, where: str) -> bool:
        """Evaluate the template's condition ``name``.

        Raises:
            TemplateError: If there is none of that name, or it depends on itself.
        """
        if name not in self._conditions:
            raise TemplateError(f"there is no condition {name!r}", where=where)
        if name in self._evaluating:
            raise TemplateError(f"the condition {name!r} depends on itself", where=where)
        self._evaluating.append(name)
        try:
            return self.truth(self._conditions[name], f"Conditions.{name}")
        finally:
            self._evaluating.pop()

    def _call(self, name: str, argument: Any, where: str) -> Any:
        function = _FUNCTIONS.get(name)
        if function is None:
            known = ", ".join(sorted(_FUNCTIONS))
            raise TemplateError(f"the local cloud does not know {name} (it knows: {known})", where=where)
        try:
            return _not_dynamic(function(self, argument, where), where)
        except TemplateError:
            raise
        except (TypeError, ValueError, LookupError, AttributeError) as exc:
            raise TemplateError(f"{name} cannot be used with {argument!r} ({exc})", where=where) from exc

    def truth(self, value: Any, where: str) -> bool:
        """Resolve a condition.

        Raises:
            TemplateError: If it is neither true nor false, or cannot be resolved.
        """
        result = self.resolve(value, where)
        if isinstance(result, bool):
            return result
        if result in ("true", "false"):
            return bool(result == "true")
        raise TemplateError(f"a condition must be true or false, not {result!r}", where=where)

    def _do_ref(self, name: str, where: str) -> Any:
        if name == "AWS::NoValue":
            return NO_VALUE
        try:
            return self._ref(name)
        except KeyError:
            raise TemplateError(
                f"!Ref names {name!r}, which the template does not define", where=where
            ) from None

    def _do_get_att(self, argument: Any, where: str) -> Any:
        resource, attribute = argument.split(".", 1) if isinstance(argument, str) else argument
        try:
            return self._attribute(resource, self.resolve(attribute, where))
        except KeyError:
            raise TemplateError(
                f"!GetAtt names {resource}.{attribute}, which the local cloud does not know", where=where
            ) from None

    def _do_sub(self, argument: Any, where: str) -> str:
        text, variables = (argument, {}) if isinstance(argument, str) else argument
        local = self.resolve(variables, where)

        def replace(match: re.Match[str]) -> str:
            literal, name = match.group(1), match.group(2).strip()
            if literal:
                return "${" + name + "}"
            if name in local:
                return _text(local[name])
            if "." in name:
                return _text(self._do_get_att(name, where))
            return _text(self._do_ref(name, where))

        return _PLACEHOLDER.sub(replace, text)

    def _do_join(self, argument: Any, where: str) -> str:
        separator, parts = argument
        return str(separator).join(_text(part) for part in self.resolve(parts, where))

    def _do_split(self, argument: Any, where: str) -> list[str]:
        separator, text = argument
        return str(self.resolve(text, where)).split(separator)

    def _do_select(self, argument: Any, where: str) -> Any:
        index, items = argument
        return self.resolve(items, where)[int(self.resolve(index, where))]

    def _do_if(self, argument: Any, where: str) -> Any:
        name, yes, no = argument
        return self.resolve(yes if self.condition(name, where) else no, where)

    def _do_equals(self, argument: Any, where: str) -> bool:
        left, right = self.resolve(argument, where)
        return _text(left) == _text(right)

    def _do_and(self, argument: Any, where: str) -> bool:
        return all(self.truth(item, where) for item in argument)

    def _do_or(self, argument: Any, where: str) -> bool:
        return any(self.truth(item, where) for item in argument)

    def _do_not(self, argument: Any, where: str) -> bool:
        (item,) = argument
        return not self.truth(item, where)

    def _do_find_in_map(self, argument: Any, where: str) -> Any:
        mapping, first, second = self.resolve(argument, where)[:3]
        return self._mappings[mapping][first][second]

    def _do_base64(self, argument: Any, where: str) -> str:
        return base64.b64encode(_text(self.resolve(argument, where)).encode()).decode()

    def _do_azs(self, argument: Any, where: str) -> list[str]:
        region = self.resolve(argument, where) or self._ref("AWS::Region")
        return [f"{region}{letter}" for letter in "abc"]


_FUNCTIONS: Final[Mapping[str, Callable[[Resolver, Any, str], Any]]] = {
    "Ref": Resolver._do_ref,
    "Condition": Resolver.condition,
    "Fn::GetAtt": Resolver._do_get_att,
    "Fn::Sub": Resolver._do_sub,
    "Fn::Join": Resolver._do_join,
    "Fn::Split": Resolver._do_split,
    "Fn::Select": Resolver._do_select,
    "Fn::If": Resolver._do_if,
    "Fn::Equals": Resolver._do_equals,
    "Fn::And": Resolver._do_and,
    "Fn::Or": Resolver._do_or,
    "Fn::Not": Resolver._do_not,
    "Fn::FindInMap": Resolver._do_find_in_map,
    "Fn::Base64": Resolver._do_base64,
    "Fn::GetAZs": Resolver._do_azs,
}


def _not_dynamic(value: Any, where: str) -> Any:
    """The value, unless it is a text in which CloudFormation would look up another."""
    if isinstance(value, str) and "{{resolve:" in value:
        raise TemplateError(f"the local cloud looks nothing up in an account: {value}", where=where)
    return value


def _text(value: Any) -> str:
    """A value as CloudFormation puts it into a string: true and false in lower case."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | dict) or value is NO_VALUE:
        raise ValueError("a list, a mapping and AWS::NoValue have no text form")
    return str(value)
