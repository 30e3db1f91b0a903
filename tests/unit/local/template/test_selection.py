"""selection: which route a message chooses, and which expressions nobody here can evaluate."""

from __future__ import annotations

import pytest

from emissary_local.template.selection import RouteSelection


@pytest.mark.parametrize(
    ("expression", "message", "key"),
    [
        ("$request.body.action", '{"action": "join"}', "join"),
        ("${request.body.action}", '{"action": "join"}', "join"),
        ("$request.body.data.kind", '{"data": {"kind": "text"}}', "text"),
        ("${request.body.data.kind}", '{"data": {"kind": "text"}}', "text"),
        ("${request.body.version}-beta", '{"version": "2"}', "2-beta"),
        ("v$request.body.version", '{"version": "2"}', "v2"),
        ("${request.body.a}${request.body.b}", '{"a": "x", "b": "y"}', "xy"),
        ("$request.body.a/$request.body.b", '{"a": "x", "b": "y"}', "x/y"),
        ("$request.body.action", '{"action": "$request.body.other", "other": "x"}', "$request.body.other"),
        ("$request.body.an_action-id", '{"an_action-id": "x"}', "x"),
        ("$request.body.action", '{"action": "ä"}', "ä"),
        ("$request.body.action", '{"action": ""}', ""),
        ("$request.body.action", '{"action": 7}', "7"),
        ("$request.body.action", '{"action": 1.5}', "1.5"),
        ("$request.body.action", '{"action": true}', "true"),
        ("\\$default", '{"action": "join"}', "$default"),
        ("\\$default", "no JSON", "$default"),
        ("\\$$request.body.action", '{"action": "connect"}', "$connect"),
        ("always", "", "always"),
    ],
)
def test_a_message_chooses_its_route(expression: str, message: str, key: str) -> None:
    assert RouteSelection(expression).key(message.encode()) == key


@pytest.mark.parametrize(
    "message",
    [
        "",
        "no JSON",
        '{"action": "join"',
        "[]",
        '"action"',
        "7",
        "null",
        "{}",
        '{"Action": "join"}',
        '{"action": null}',
        '{"action": {"x": "y"}}',
        '{"action": ["join"]}',
    ],
)
def test_a_message_that_lacks_what_is_asked_for_chooses_none(message: str) -> None:
    assert RouteSelection("$request.body.action").key(message.encode()) is None


@pytest.mark.parametrize("message", ['{"a": "x"}', '{"a": {"b": "x"}}', '{"b": "x"}', '{"a": []}'])
def test_one_missing_member_is_as_bad_as_all(message: str) -> None:
    assert RouteSelection("${request.body.a}-${request.body.a.b}").key(message.encode()) is None


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "$",
        "$default",
        "$request.body",
        "$request.header.action",
        "$context.routeKey",
        "${request.body.}",
        "${request.body.action",
        "${request.body['action']}",
        "${request.querystring.action}",
    ],
)
def test_an_expression_that_cannot_be_evaluated_is_refused(expression: str) -> None:
    with pytest.raises(ValueError, match="route selection expression"):
        RouteSelection(expression)
