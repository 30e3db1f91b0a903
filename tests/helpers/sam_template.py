"""What SAM makes of template.yaml: the CloudFormation template that is deployed.

Run as a program, it writes the snapshot that tests/infra/test_template_snapshot.py compares with::

    python -m tests.helpers.sam_template
"""

from __future__ import annotations

import functools
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

from emissary_local.template.intrinsics import Resolver, load_yaml
from emissary_local.template.names import PSEUDO_PARAMETERS, STACK_NAME, parameter_values
from emissary_local.template.sam import load_and_translate

ROOT: Final = pathlib.Path(__file__).resolve().parents[2]
TEMPLATE: Final = ROOT / "template.yaml"
SNAPSHOT: Final = ROOT / "tests" / "infra" / "snapshots" / "template.json"

#: Parameters without a default, beside the network's, which the local cloud makes up.
REQUIRED: Final = {"AllowedTargets": "[]"}


@functools.cache
def source() -> dict[str, Any]:
    """template.yaml itself, short tags in their long form."""
    return load_yaml(TEMPLATE.read_text(encoding="utf-8"), "template.yaml")


def translate_template() -> dict[str, Any]:
    """The whole translated template; not to be changed."""
    return load_and_translate(TEMPLATE)


def as_text(document: Mapping[str, Any]) -> str:
    """A template in the snapshot's form."""
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


def resolver(
    parameters: Mapping[str, str],
    partition: str = "aws",
    stack_name: str = STACK_NAME,
    template: pathlib.Path = TEMPLATE,
) -> Resolver:
    """Resolves parts of the translated template; a reference to a resource becomes its name in ``<>``."""
    values = {**PSEUDO_PARAMETERS, "AWS::Partition": partition, "AWS::StackName": stack_name}
    document = load_and_translate(template)
    values |= parameter_values(document["Parameters"], parameters)
    resources = document["Resources"]

    def ref(name: str) -> Any:
        return values[name] if name in values else f"<{name}>" if name in resources else values[name]

    return Resolver(document, ref=ref, attribute=lambda name, wanted: f"<{name}.{wanted}>")


def resolve_resources(template: pathlib.Path = TEMPLATE, /, **parameters: str) -> dict[str, dict[str, Any]]:
    """The resources that exist with these parameters, with every intrinsic function resolved."""
    resolve = resolver({**REQUIRED, **parameters}, template=template)
    return {
        name: resolve.resolve(
            {key: value for key, value in resource.items() if key != "Condition"}, f"Resources.{name}"
        )
        for name, resource in load_and_translate(template)["Resources"].items()
        if "Condition" not in resource or resolve.condition(resource["Condition"], name)
    }


def outputs(partition: str = "aws", **parameters: str) -> dict[str, str]:
    """The stack's outputs with these parameters, resolved."""
    resolve = resolver({**REQUIRED, **parameters}, partition)
    return {
        name: resolve.resolve(output["Value"], f"Outputs.{name}")
        for name, output in translate_template()["Outputs"].items()
        if "Condition" not in output or resolve.condition(output["Condition"], name)
    }


def of_type(resources: Mapping[str, Mapping[str, Any]], wanted: str) -> dict[str, dict[str, Any]]:
    """Logical id -> properties of the resources of one type."""
    return {name: each["Properties"] for name, each in resources.items() if each["Type"] == wanted}


def strings(value: Any) -> Iterator[str]:
    """Every string at any depth, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from strings(key)
            yield from strings(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from strings(inner)


if __name__ == "__main__":
    SNAPSHOT.parent.mkdir(parents=True, exist_ok=True)
    SNAPSHOT.write_text(as_text(translate_template()), encoding="utf-8")
