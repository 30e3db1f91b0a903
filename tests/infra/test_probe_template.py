"""The probe's own stack: what is made, what its function may do, and that it tries what Emissary uses."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from emissary_local.template.intrinsics import load_yaml
from emissary_local.template.sam import load_and_translate
from emissary_local.template.specs import Route, Template
from emissary_local.template.template import read_template
from tests.helpers.patience import HANG
from tests.helpers.sam_template import ROOT, as_text, source, strings
from tests.infra.documents import block_commands
from tools.probe import __main__ as command
from tools.probe import experiments
from tools.probe.experiments import ACCESS_LOG, FLOOD, LONGEST_TIMEOUT
from tools.probe.questions import QUESTIONS

TEMPLATE: Final = ROOT / "tools" / "probe" / "template.yaml"


def written() -> dict[str, Any]:
    """The probe's template itself, short tags in their long form."""
    return load_yaml(TEMPLATE.read_text(encoding="utf-8"), "template.yaml")


@pytest.fixture(scope="module")
def template() -> Template:
    return read_template(TEMPLATE, {})


def test_one_function_is_behind_every_route(template: Template) -> None:
    assert template.api.routes == {key: Route("Function") for key in ("$connect", "$default", "$disconnect")}
    assert (
        template.api.route_selection
        == source()["Resources"]["WebSocketApi"]["Properties"]["RouteSelectionExpression"]
    )


def test_its_function_writes_posts_and_closes_and_reads_nothing(template: Template) -> None:
    """As ``$connect`` of Emissary: question 13 is whether that is enough."""
    granted: set[str] = set()
    for policy in template.functions["Function"].policies:
        for statement in policy["Statement"] if isinstance(policy, dict) else ():
            actions = statement["Action"]
            granted |= {actions} if isinstance(actions, str) else set(actions)
    assert granted == {"dynamodb:PutItem", "dynamodb:UpdateItem", "execute-api:ManageConnections"}


def test_only_messages_meet_a_throttle_and_the_flood_is_above_it(template: Template) -> None:
    (throttle,) = template.api.route_throttles.values()
    assert set(template.api.route_throttles) == {"$default"}
    assert throttle.burst is not None
    assert 5 * throttle.burst < FLOOD
    assert template.api.default_throttle is not None
    assert template.api.default_throttle.burst == 1000


def test_the_other_revision_changes_the_function_and_the_stage() -> None:
    one, other = (read_template(TEMPLATE, {"Revision": each}) for each in ("0", "1"))
    assert one.functions["Function"].timeout != other.functions["Function"].timeout
    assert one.api.default_throttle != other.api.default_throttle


def test_it_takes_what_a_companys_account_demands_as_emissarys_does() -> None:
    ours, emissarys = written()["Parameters"], source()["Parameters"]
    for name in ("PermissionsBoundaryArn", "RolePath", "IpAddressType"):
        assert {**ours[name], "Description": ""} == {**emissarys[name], "Description": ""}


def test_its_role_has_the_path_and_the_boundary_that_are_given() -> None:
    (role,) = (
        each
        for each in load_and_translate(TEMPLATE)["Resources"].values()
        if each["Type"] == "AWS::IAM::Role"
    )
    for name, parameter in (("Path", "RolePath"), ("PermissionsBoundary", "PermissionsBoundaryArn")):
        assert {"Ref": parameter} in role["Properties"][name]["Fn::If"]


def test_without_a_boundary_there_is_none_and_one_that_is_given_is_the_roles() -> None:
    arn = "arn:aws:iam::111122223333:policy/Boundary"
    document: dict[str, Any] = {"Statement": []}
    assert read_template(TEMPLATE, {}).functions["Function"].boundary is None
    given = read_template(TEMPLATE, {"PermissionsBoundaryArn": arn}, {arn: document})
    assert given.functions["Function"].boundary == document


def test_nothing_of_it_stays_or_costs_while_it_is_idle() -> None:
    resources = load_and_translate(TEMPLATE)["Resources"]
    made = sorted(re.sub(r"Permission$", "", each["Type"]) for each in resources.values())
    assert set(made) == {
        "AWS::ApiGatewayV2::Api", "AWS::ApiGatewayV2::Integration", "AWS::ApiGatewayV2::Route",
        "AWS::ApiGatewayV2::Stage", "AWS::DynamoDB::Table", "AWS::IAM::Role", "AWS::Lambda::",
        "AWS::Lambda::Function", "AWS::Logs::LogGroup",
    }  # fmt: skip
    assert not [each for each in resources.values() if {"DeletionPolicy", "UpdateReplacePolicy"} & set(each)]


def test_the_access_log_that_is_tried_is_emissarys() -> None:
    settings = source()["Resources"]["WebSocketApi"]["Properties"]["AccessLogSettings"]
    wanted = re.findall(r"\$context\.([\w.]+)", " ".join(strings(settings)))
    assert list(ACCESS_LOG) == wanted


def test_every_command_of_the_client_in_the_document_is_accepted() -> None:
    commands = [words for words in block_commands("docs/probe.md", "python") if words[1] == "tools.probe"]
    assert len(commands) == 2
    for words in commands:
        assert command.parser().parse_args(words[2 : words.index(">")])


@pytest.mark.slow
def test_what_sam_makes_of_it_is_valid_cloudformation(tmp_path: Path) -> None:
    file = tmp_path / "translated.json"
    file.write_text(as_text(load_and_translate(TEMPLATE)), encoding="utf-8")
    lint = subprocess.run(
        [sys.executable, "-c", "from cfnlint.runner import main; main()", str(file)],
        capture_output=True, text=True, timeout=4 * HANG,
    )  # fmt: skip
    assert (lint.returncode, lint.stdout, lint.stderr) == (0, "", "")


def test_the_question_about_the_timeout_says_what_emissarys_template_takes() -> None:
    (asked,) = (each for each in QUESTIONS if each.experiment is experiments.longest_timeout)
    taken = source()["Parameters"]["RelayTimeout"]
    assert taken["MaxValue"] == LONGEST_TIMEOUT
    assert f"can be up to {taken['MaxValue']}; it is {taken['Default']} unless it is given" in asked.assumes
    assert f"above {taken['Default']} fails the deployment" in asked.otherwise


def test_the_question_about_the_log_says_what_emissarys_template_does() -> None:
    (asked,) = (each for each in QUESTIONS if each.experiment is experiments.metrics)
    logging = source()["Resources"]["DefaultFunction"]["Properties"]["LoggingConfig"]
    assert (logging["LogFormat"], logging["SystemLogLevel"]) == ("JSON", "WARN")
    assert "so those lines are left out of the log of $default" in asked.assumes
    assert "LoggingConfig" in asked.otherwise
