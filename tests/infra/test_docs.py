"""README, CONTRIBUTING, CHANGELOG, example.env, Makefile and --help agree with the code."""

from __future__ import annotations

import ast
import asyncio
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
from typing import Any

import pytest

from emissary_lib import Dialer
from emissary_lib.cli import config
from emissary_lib.cli import main as cli
from emissary_lib.client.config import ClientConfig
from emissary_lib.client.env_file import parse_env
from emissary_lib.protocol.targets.allow_list import AllowList
from tests.helpers.bridge import KEY, TARGET, Behaviour, Bridge, echo
from tests.infra.documents import fenced

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCUMENTS = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"]

#: Names of variables that somebody may set: ours, and AWS's and OpenSSL's that concern us.
VARIABLE = re.compile(r"(?:EMISSARY|AWS|SSL)_[A-Z_]+")

#: What Lambda, the SDK and the shell of the local cloud hand on, without any code of ours asking for it.
NOT_SETTINGS = {
    "AWS_ACCESS_KEY_ID",
    "AWS_DEFAULT_REGION",
    "AWS_EXECUTION_ENV",
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
    "AWS_LAMBDA_FUNCTION_VERSION",
    "AWS_LAMBDA_INITIALIZATION_TYPE",
    "AWS_LAMBDA_LOG_GROUP_NAME",
    "AWS_LAMBDA_LOG_STREAM_NAME",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    # A type of integration, no variable.
    "AWS_PROXY",
    # What `emissary exec` sets for the program that it runs.
    "EMISSARY_HOST",
    "EMISSARY_PORT",
}


def variables_in_code() -> set[str]:
    """String literals that are names of variables, in all code and in template.yaml."""
    found = set(re.findall(r"^\s+(EMISSARY_[A-Z_]+):", (ROOT / "template.yaml").read_text(), re.MULTILINE))
    for top in ("emissary_lib", "emissary_local", "functions"):
        for path in (ROOT / top).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                text = node.value if isinstance(node, ast.Constant) else None
                if isinstance(text, str) and VARIABLE.fullmatch(text):
                    found.add(text)
    return found - NOT_SETTINGS


def paragraphs() -> dict[str, str]:
    """Variable -> its comment and its line in example.env."""
    found = {}
    for paragraph in (ROOT / "example.env").read_text().split("\n\n"):
        for name in re.findall(r"^#?([A-Z_]+)=", paragraph, re.MULTILINE):
            assert name not in found, f"{name} stands in example.env twice"
            found[name] = paragraph
    return found


def makefile_targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_example_env_has_every_variable_that_is_read_and_no_other() -> None:
    assert set(paragraphs()) == variables_in_code() | {"SSL_CERT_FILE"}


def test_emissary_config_knows_every_variable_of_ours_and_no_other() -> None:
    ours = {name for name in paragraphs() if name.startswith("EMISSARY_")}
    assert {*config.SETTINGS, *config.OF_THE_STACK} == ours


@pytest.mark.parametrize("name", sorted(paragraphs()))
def test_every_variable_has_meaning_unit_default_and_reader(name: str) -> None:
    paragraph = paragraphs()[name]
    assert re.search(rf"^# {name}: \w", paragraph, re.MULTILINE)
    for word in ("Unit", "Default", "Read by"):
        assert re.search(rf"^#   {word}: \S", paragraph, re.MULTILINE), word


def test_the_names_are_the_original_s() -> None:
    assert {"EMISSARY_AUTH_KEYS", "EMISSARY_ALLOWED_PROXY_TARGETS", "EMISSARY_DNS_SERVERS"} <= set(
        paragraphs()
    )


def test_example_env_is_a_valid_env_file_of_the_platform_s_side() -> None:
    values = parse_env((ROOT / "example.env").read_text()).values
    assert set(values) == {"EMISSARY_URL", "EMISSARY_AUTH_KEYS"}
    assert ClientConfig.from_env(values).key.key_id == 1
    Dialer.from_env({}, env_file=str(ROOT / "example.env")).close()


def test_example_env_s_commented_values_are_valid() -> None:
    bare = re.sub(r"^#(?=[A-Z_]+=)", "", (ROOT / "example.env").read_text(), flags=re.MULTILINE)
    values = parse_env(bare).values
    assert set(values) == set(paragraphs())
    (rule,) = AllowList.parse(values["EMISSARY_ALLOWED_PROXY_TARGETS"]).rules
    assert str(rule) == "db.internal:5432"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_make_command_in_a_document_exists(document: str) -> None:
    text = (ROOT / document).read_text()
    named = re.findall(r"(?:^|`)make (?:PYTHON=\S+ )?([a-z]+)", text, re.MULTILINE)
    assert set(named) <= makefile_targets()
    assert document == "CHANGELOG.md" or named


def test_the_readme_s_two_commands_without_aws_are_demo_and_test() -> None:
    blocks = fenced("README.md", "sh")
    made = [re.findall(r"^make (\w+)", block, re.MULTILINE) for block in blocks]
    assert [each for each in made if each] == [["demo", "test"]]


def test_every_emissary_command_in_the_readme_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    text = "\n".join(fenced("README.md", "sh"))
    commands = re.findall(r"^emissary ([^#\n]+)", text, re.MULTILINE)
    named = {command.split()[0] for command in commands}
    assert named == {"exec", "forward", "socks", "connect", "config", "doctor", "local"}
    for command in commands:
        assert callable(cli.parse(shlex.split(command)).command.run)


def test_the_changelog_names_every_command() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    assert all(f"`emissary {command}`" in text for command in cli.COMMANDS)
    assert text.index("## Unreleased") < len(text)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_path_in_a_document_exists(document: str) -> None:
    paths = re.findall(
        r"`((?:emissary_lib|functions|tests|docs|\.ci)/[\w./]+)`", (ROOT / document).read_text()
    )
    assert [each for each in paths if not (ROOT / each).exists()] == []


def test_the_readme_s_code_is_valid_and_uses_what_exists() -> None:
    ten, *others = fenced("README.md", "python")
    assert len(ten.splitlines()) <= 10
    for each in (ten, *others):
        compile(each, "README.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        for method in re.findall(r"dialer\.(\w+)\(", each):
            assert callable(getattr(Dialer, method))
    assert callable(Dialer.from_env)


def test_the_documents_loop_takes_a_driver_that_asks_its_loop_through_the_tunnel() -> None:
    (code,) = (each for each in fenced("docs/drivers.md", "python") if "class TunnelLoop" in each)
    names: dict[str, Any] = {"asyncio": asyncio}
    exec(code[code.index("class TunnelLoop") : code.index("async def main")], names)

    async def main() -> None:
        with Bridge(Behaviour(script=echo)) as bridge:
            loop = names["TunnelLoop"](Dialer(bridge.url, KEY))
            transport, _protocol = await loop.create_connection(asyncio.Protocol, "db.internal", 5432)
            assert str(Dialer.session_of(transport).target) == TARGET
            assert not loop.create_future().done()
            transport.abort()

    asyncio.run(main())


def checkout(folder: pathlib.Path) -> None:
    """What make needs to plan."""
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "requirements", folder / "requirements")


def test_make_names_the_interpreter_it_would_use_or_says_what_is_missing(tmp_path: pathlib.Path) -> None:
    make = shutil.which("make")
    assert make is not None
    checkout(tmp_path)
    plan = subprocess.run(
        [make, "-n", "demo", f"PYTHON={sys.executable}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert f"{sys.executable} -m venv .venv" in plan
    assert plan.rstrip().endswith(".venv/bin/python -m tools.demo")
    missing = subprocess.run([make, "demo", "PYTHON="], cwd=tmp_path, capture_output=True, text=True)
    assert missing.returncode != 0
    assert "no Python 3.11 or newer with venv was found" in missing.stderr


@pytest.mark.slow
def test_the_second_make_installs_nothing(tmp_path: pathlib.Path) -> None:
    make = shutil.which("make")
    assert make is not None
    checkout(tmp_path)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    for name in ("bin/python", ".dev", ".demo"):
        (tmp_path / ".venv" / name).touch()
    for target in ("demo", "test", "check", "bench"):
        plan = subprocess.run(
            [make, "-n", target],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert "pip" not in plan
        assert "venv .venv" not in plan


def test_the_gate_is_one_command_and_ci_runs_it() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    text = script.read_text()
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "set -euo pipefail" in text
    assert "make check" in text
