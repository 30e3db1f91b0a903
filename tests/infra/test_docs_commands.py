"""What the documents tell people to type or to click exists: commands, options, variables, links."""

from __future__ import annotations

import ast
import json
import pathlib
import re
import shlex
import subprocess
import sys
import tomllib
from typing import Any

import botocore.session
import jmespath  # type: ignore[import-untyped]
import pytest
import yaml
from botocore import xform_name

from emissary_lib import Dialer
from emissary_lib.cli import main as cli
from emissary_lib.protocol.targets.allow_list import AllowList
from emissary_local.template.names import parameter_values
from tests.helpers.patience import HANG
from tests.helpers.sam_template import source
from tests.infra import documents
from tests.infra.documents import DOCUMENTS, ROOT
from tests.infra.test_docs import NOT_SETTINGS, makefile_targets, paragraphs
from tools.replay import __main__ as replay
from tools.replay import cases

#: Options that every aws command has, and those that the command adds to an operation of its own accord.
AWS_GLOBAL = {"query", "output", "region", "profile"}
AWS_ADDED = {"authorize-security-group-ingress": {"protocol", "port", "source-group", "cidr"}}

SAM = """
import importlib, json, sys
print(json.dumps({
    name: [option for each in importlib.import_module(module).cli.params for option in each.opts]
    for name, module in json.loads(sys.argv[1]).items()
}))
"""

OVERRIDES = """
import json, sys
from samcli.cli.types import CfnParameterOverridesType
print(json.dumps(CfnParameterOverridesType().convert((sys.argv[1],), None, None)))
"""


COMMANDS = documents.subcommands(cli.parser())


def command_of(words: list[str]) -> str:
    """The name of the command that the words call, as long as it is known."""
    two = " ".join(words[:2])
    return two if two in COMMANDS else words[0]


def spelt_out(words: list[str]) -> list[list[str]]:
    """``keys new|list`` as ``keys new`` and ``keys list``."""
    first, *rest = words
    actions = rest[0].split("|") if rest else []
    return [[first, action, *rest[1:]] for action in actions] or [words]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_emissary_command_in_a_block_is_accepted(
    document: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    for words in documents.block_commands(document, "emissary"):
        assert callable(cli.parse(words).command.run)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_emissary_command_in_the_prose_exists_with_its_options(document: str) -> None:
    for words in documents.prose_commands(document, "emissary"):
        if words[0].startswith("-") or words[0].isupper():
            continue  # `emissary --help` and `emissary COMMAND --help`
        for called in spelt_out(words):
            name = command_of(called)
            assert name in COMMANDS, f"{document}: emissary {' '.join(words)}"
            ours = called[: called.index("--")] if "--" in called else called
            options = {word for word in ours if word.startswith("--")}
            assert options <= set(COMMANDS[name]._option_string_actions), f"{document}: emissary {words}"


def test_every_command_and_action_is_in_the_readme_or_the_manual() -> None:
    told = {
        command_of(words)
        for document in ("README.md", "docs/operations.md")
        for words in documents.commands(document, "emissary")
    }
    named = told | {name.split()[0] for name in told}
    assert set(COMMANDS) - named == set()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_make_target_in_a_document_exists(document: str) -> None:
    for words in documents.commands(document, "make"):
        targets = {word for word in words if re.fullmatch("[a-z]+", word)}
        assert targets <= makefile_targets(), f"{document}: make {' '.join(words)}"


def test_every_make_target_is_in_the_readme_or_in_contributing() -> None:
    told = {
        word
        for document in ("README.md", "CONTRIBUTING.md")
        for words in documents.commands(document, "make")
        for word in words
    }
    assert makefile_targets() - told == set()


def test_what_a_document_installs_is_in_this_source_tree() -> None:
    """The package is in no registry: its name alone installs nothing, or somebody else's."""
    project = tomllib.loads(documents.read("pyproject.toml"))["project"]
    installs = {name: documents.commands(name, "pip") for name in DOCUMENTS}
    assert installs["README.md"]
    assert installs["docs/operations.md"]
    for document, (command, *wanted) in ((name, words) for name, all_ in installs.items() for words in all_):
        assert command == "install"
        assert wanted
        for each in wanted:
            place = re.fullmatch(r"(\.)(?:\[([\w,]+)\])?", each)
            assert place is not None, f"{document}: pip install {each}: name the source tree ('.[aws]')"
            extras = set(place[2].split(",")) if place[2] else set()
            assert extras <= set(project["optional-dependencies"]), f"{document}: pip install {each}"


@pytest.fixture(scope="module")
def aws() -> Any:
    return botocore.session.get_session()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_aws_command_is_an_operation_with_its_parameters(document: str, aws: Any) -> None:
    for words in documents.commands(document, "aws"):
        service, operation, *rest = words
        model = aws.get_service_model(service)
        operations = {xform_name(name, "-"): name for name in model.operation_names}
        assert operation in operations, f"{document}: aws {' '.join(words)}"
        shape = model.operation_model(operations[operation]).input_shape
        known = {xform_name(member, "-") for member in (shape.members if shape else ())}
        needed = {xform_name(member, "-") for member in (shape.required_members if shape else ())}
        given = {word.removeprefix("--") for word in rest if word.startswith("--")}
        assert given <= known | AWS_GLOBAL | AWS_ADDED.get(operation, set()), f"{document}: aws {words}"
        assert needed <= given, f"{document}: aws {words}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_query_of_an_aws_command_asks_for_what_is_answered(document: str, aws: Any) -> None:
    for words in documents.commands(document, "aws"):
        if "--query" not in words:
            continue
        query = words[words.index("--query") + 1]
        model = aws.get_service_model(words[0])
        operations = {xform_name(name, "-"): name for name in model.operation_names}
        answered = members(model.operation_model(operations[words[1]]).output_shape)
        jmespath.compile(query)
        assert set(re.findall(r"\w+", query)) <= answered, f"{document}: aws {words}"


def members(shape: Any) -> set[str]:
    """The names of everything that an answer holds, at any depth."""
    if shape.type_name == "list":
        return members(shape.member)
    if shape.type_name != "structure":
        return set()
    return set(shape.members).union(*(members(each) for each in shape.members.values()))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_what_is_to_be_typed_has_no_gaps(document: str) -> None:
    """What a shell would take for a redirection, or a dialer for a name."""
    for block in documents.fenced(document, "sh"):
        assert re.findall(r"<\w+>|\.\.\.", block) == []


def test_the_file_of_parameters_is_read_by_sam_and_good_for_the_template(tmp_path: pathlib.Path) -> None:
    (text,) = documents.fenced("docs/operations.md", "yaml")
    name = text.splitlines()[0].removeprefix("# ")
    assert f"file://{name}" in documents.read("docs/operations.md")
    (tmp_path / name).write_text(text)
    answer = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", OVERRIDES, f"file://{name}"],
        env={"SAM_CLI_TELEMETRY": "0", "HOME": str(tmp_path)}, cwd=tmp_path,
        capture_output=True, text=True, check=True, timeout=4 * HANG,
    )  # fmt: skip
    given = json.loads(answer.stdout)
    declared = source()["Parameters"]
    assert {name for name, each in declared.items() if "Default" not in each} <= set(given)
    values = parameter_values(declared, given)
    assert len(values["SubnetIds"]) == 2
    assert " ".join(map(str, AllowList.parse(values["AllowedTargets"]).rules)) == "db.internal:5432"


def test_every_sam_command_has_its_options(tmp_path: pathlib.Path) -> None:
    modules = {
        "build": "samcli.commands.build.command",
        "deploy": "samcli.commands.deploy.command",
        "delete": "samcli.commands.delete.command",
        "list stack-outputs": "samcli.commands.list.stack_outputs.command",
        "list resources": "samcli.commands.list.resources.command",
        "local invoke": "samcli.commands.local.invoke.cli",
        "validate": "samcli.commands.validate.validate",
    }
    answer = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SAM, json.dumps(modules)],
        env={"SAM_CLI_TELEMETRY": "0", "HOME": str(tmp_path), "AWS_DEFAULT_REGION": "us-east-1"},
        capture_output=True, text=True, check=True, timeout=4 * HANG,
    )  # fmt: skip
    options = json.loads(answer.stdout)
    called = [words for document in DOCUMENTS for words in documents.commands(document, "sam")]
    assert called
    for words in called:
        name = " ".join(words[:2]) if " ".join(words[:2]) in options else words[0]
        assert name in options, f"sam {' '.join(words)}"
        assert {word for word in words if word.startswith("--")} <= set(options[name]), f"sam {words}"


def test_every_replay_in_contributing_is_accepted() -> None:
    words = documents.block_commands("CONTRIBUTING.md", ".venv/bin/python")
    called = [rest for module, name, *rest in words if (module, name) == ("-m", "tools.replay")]
    assert {"sam"} == {rest[0] for rest in called}
    for rest in called:
        assert set(replay.parser().parse_args(rest).names) <= set(cases.names())
    assert replay.parser().parse_args(["sam"]).listen in documents.read("CONTRIBUTING.md")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_variable_in_a_document_is_one_that_is_read(document: str) -> None:
    named = set(re.findall(r"\b(?:EMISSARY|AWS|SSL)_[A-Z_]+\b", documents.read(document)))
    unread = {"AWS_PROXY", "AWS_REGION", "AWS_PROFILE"}
    assert named <= set(paragraphs()) | NOT_SETTINGS | unread


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_leads_somewhere(document: str) -> None:
    here = (ROOT / document).parent
    for link in re.findall(r"\]\(([^)\s]+)\)", documents.read(document)):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (here / path).resolve() if path else ROOT / document
        assert target.exists(), f"{document}: {link}"
        if anchor:
            assert anchor in documents.anchors(str(target.relative_to(ROOT))), f"{document}: {link}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_code_in_a_document_can_be_read(document: str) -> None:
    for block in documents.fenced(document, "python"):
        compile(block, document, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        for method in re.findall(r"\b[Dd]ialer\.(\w+)\(", block):
            assert callable(getattr(Dialer, method)), f"{document}: {method}"
    for block in documents.fenced(document, "json"):
        json.loads(block)
    for block in documents.fenced(document, "yaml"):
        assert yaml.safe_load(block)


def strings(value: Any) -> list[str]:
    """The strings in a document of YAML, at any depth."""
    if isinstance(value, dict):
        return [each for inner in value.values() for each in strings(inner)]
    if isinstance(value, list):
        return [each for inner in value for each in strings(inner)]
    return [value] if isinstance(value, str) else []


def test_the_pipelines_of_the_guide_run_commands_that_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    pipelines = [yaml.safe_load(block) for block in documents.fenced("docs/guides/ci.md", "yaml")]
    assert len(pipelines) == 2
    for pipeline in pipelines:
        run = [each for each in strings(pipeline) if each.startswith("emissary ")]
        assert run
        for each in run:
            assert callable(cli.parse(shlex.split(each)[1:]).command.run)


def source_text() -> str:
    """Every string of the library as it is put together, in any order."""
    found = []
    for path in (ROOT / "emissary_lib").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


def test_the_command_says_what_the_troubleshooting_quotes() -> None:
    said = source_text()
    (rows,) = documents.tables("docs/troubleshooting.md", "What the command says")
    quoted = [re.findall("`([^`]+)`", line) for line in _lines("What the command says")]
    assert len(quoted) == len(rows)
    for words in quoted:
        for part in re.split(r"\.\.\.|127\.0\.0\.1:PORT|EMISSARY_URL|30 s", " ... ".join(words)):
            assert part.strip(" :,") in said, part


def _lines(heading: str) -> list[str]:
    """The first cells of the rows of a section's table, with their backquotes."""
    rows = [
        line for line in documents.section("docs/troubleshooting.md", heading).splitlines() if line[:1] == "|"
    ]
    return [row.split(" | ")[0] for row in rows[2:]]


def test_every_document_is_linked_from_the_readme() -> None:
    linked = set(re.findall(r"\]\(([^)#\s]+)", documents.read("README.md")))
    assert set(DOCUMENTS) - {"README.md"} <= linked
