"""What the change set of an upgrade from the version before may not show; and that it is that version."""

from __future__ import annotations

import hashlib
import pathlib
import subprocess
from typing import Any, Final

import pytest
from cfnlint.schema.manager import PROVIDER_SCHEMA_MANAGER

from tests.helpers.sam_template import ROOT, TEMPLATE, resolve_resources
from tests.helpers.versions import COMMIT, unpack

#: What would be lost with a resource that is made anew: items and sessions, keys, the address that dialers
#: have, records, the group that targets let in.
KEPT: Final = (
    "AWS::DynamoDB::Table",
    "AWS::SecretsManager::Secret",
    "AWS::ApiGatewayV2::Api",
    "AWS::ApiGatewayV2::Stage",
    "AWS::Logs::LogGroup",
    "AWS::EC2::SecurityGroup",
)


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The tree of the version before."""
    folder = tmp_path_factory.mktemp("before")
    unpack(folder)
    return folder


def what_is_kept(template: pathlib.Path) -> dict[str, Any]:
    """By logical id: the type, and all properties with which CloudFormation would make another one."""
    everything = resolve_resources(template, AccessLogs="true")
    return {
        name: (resource["Type"], {key: resource["Properties"].get(key) for key in fixed(resource["Type"])})
        for name, resource in everything.items()
        if resource["Type"] in KEPT
    }


def fixed(kind: str) -> list[str]:
    """The properties whose change has a resource replaced, as CloudFormation's schema of its type has it."""
    schema = PROVIDER_SCHEMA_MANAGER.get_resource_schema("us-east-1", kind).schema
    pointers = [*schema["createOnlyProperties"], *schema.get("conditionalCreateOnlyProperties", [])]
    return sorted({pointer.split("/")[2] for pointer in pointers})


def test_an_upgrade_replaces_and_removes_nothing_that_would_be_lost(before: pathlib.Path) -> None:
    old, new = what_is_kept(before / "template.yaml"), what_is_kept(TEMPLATE)
    assert {kind for kind, _fixed in old.values()} == set(KEPT)
    assert {name: new.get(name) for name in old} == old


def test_an_upgrade_does_not_touch_the_secret_with_the_keys(before: pathlib.Path) -> None:
    old, new = resolve_resources(before / "template.yaml"), resolve_resources()
    assert new["KeySecret"] == old["KeySecret"]


def test_the_version_before_is_what_the_history_has(before: pathlib.Path) -> None:
    names = sorted(path.name for path in before.iterdir())
    done = subprocess.run(
        ["git", "ls-tree", "-r", COMMIT, *names], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"this checkout does not have the commit {COMMIT}: {done.stderr.strip()}")
    wanted = {line.partition("\t")[2]: line.split()[2] for line in done.stdout.splitlines()}
    files = [path for path in before.rglob("*") if path.is_file()]
    assert {path.relative_to(before).as_posix(): blob(path.read_bytes()) for path in files} == wanted


def blob(content: bytes) -> str:
    """Git's name of a file's content. Source: Pro Git, "Git Objects"."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
