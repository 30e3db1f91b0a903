"""CloudFormation's intrinsic functions."""

from __future__ import annotations

from typing import Any

import pytest

from emissary_local.errors import TemplateError
from emissary_local.template.intrinsics import Resolver, load_yaml

REFS = {"Name": "x", "List": ["a", "b"], "AWS::Region": "us-east-1", "Flag": "true"}
CONDITIONS = """
Conditions:
  Holds: !Equals [1, "1"]
  Fails: !Not [!Condition Holds]
  Both: !And [!Condition Holds, !Condition Fails]
  Either: !Or [!Condition Holds, !Condition Fails]
  Loop: !Not [!Condition Loop]
Mappings: {Sizes: {big: {bytes: 9}}}
"""


def attribute(resource: str, name: str) -> str:
    return {("Fn", "Arn"): "arn:fn"}[resource, name]


def resolve(text: str) -> Any:
    document = load_yaml(CONDITIONS + f"Value: {text}\n", "test")
    return Resolver(document, ref=REFS.__getitem__, attribute=attribute).resolve(document["Value"], "Value")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("!Ref Name", "x"),
        ("{Ref: Name}", "x"),
        ("!GetAtt Fn.Arn", "arn:fn"),
        ("{'Fn::GetAtt': [Fn, Arn]}", "arn:fn"),
        ("!Sub '${Name}-${Fn.Arn}-${AWS::Region}-${!Name}'", "x-arn:fn-us-east-1-${Name}"),
        ("!Sub ['${Name}-${Own}', {Own: !Ref List2}]", None),
        ("!Sub ['${Name}-${Own}', {Own: !Select [1, !Ref List]}]", "x-b"),
        ("!Join ['+', [a, !Ref Name, 3]]", "a+x+3"),
        ("!Join [',', !Ref List]", "a,b"),
        ("!Split ['-', 'a-b']", ["a", "b"]),
        ("!If [Holds, 1, 2]", 1),
        ("!If [Fails, 1, 2]", 2),
        ("!If [Both, 1, 2]", 2),
        ("!If [Either, 1, 2]", 1),
        ("{keep: 1, drop: !If [Fails, 1, !Ref 'AWS::NoValue']}", {"keep": 1}),
        ("[1, !Ref 'AWS::NoValue', 2]", [1, 2]),
        ("!FindInMap [Sizes, big, bytes]", 9),
        ("!Base64 hello", "aGVsbG8="),
        ("!GetAZs ''", ["us-east-1a", "us-east-1b", "us-east-1c"]),
        ("{Condition: {StringEquals: {a: !Ref Name}}}", {"Condition": {"StringEquals": {"a": "x"}}}),
        ("2012-10-17", "2012-10-17"),
    ],
)
def test_function_has_cloudformations_value(text: str, expected: Any) -> None:
    if expected is None:
        with pytest.raises(TemplateError, match="List2"):
            resolve(text)
    else:
        assert resolve(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{a: [!Transform x]}", r"Value\.a\[0\]: the local cloud does not know Fn::Transform \(it knows: "),
        ("!Ref Nobody", "Value: !Ref names 'Nobody', which the template does not define"),
        ("!GetAtt Fn.Nothing", r"Value: !GetAtt names Fn\.Nothing"),
        ("!If [Absent, 1, 2]", "there is no condition 'Absent'"),
        ("!If [Loop, 1, 2]", "the condition 'Loop' depends on itself"),
        ("!Select [5, !Ref List]", "Fn::Select cannot be used with"),
        ("!Join [a]", "Fn::Join cannot be used with"),
        ("!Sub '${List}'", "Fn::Sub cannot be used with"),
    ],
)
def test_wrong_use_is_refused_with_its_place(text: str, message: str) -> None:
    with pytest.raises(TemplateError, match=message):
        resolve(text)
