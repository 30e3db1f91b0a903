"""The gate, here and in public: what it runs, with which packages, and that it says what it leaves out."""

from __future__ import annotations

import pathlib
import re
import shutil
import subprocess
import tomllib
from typing import Any, Final

import pytest
import yaml

from tests.infra.documents import ROOT

PROJECT: Final[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text())

#: Each workflow, by its file's name.
WORKFLOWS: Final[dict[str, dict[Any, Any]]] = {
    path.name: yaml.safe_load(path.read_text()) for path in (ROOT / ".github" / "workflows").glob("*.yml")
}

#: What the scripts call that is neither apt's nor the gate's.
TOOLS = ["bash", "chmod", "dirname", "env", "find", "grep", "mkdir", "rm", "sh", "tee", "timeout"]

#: Stands for `make`: says what it was asked, and which servers the suite would find.
GATE = """#!/bin/sh
echo "make $*"
redis-server --version
mariadbd --version
true
"""

#: Stands for apt-get: `update` brings the lists, without which nothing is found; packages are their names.
APT = """#!/bin/sh
echo "apt-get $*" >>calls
case "$*" in
  *update) : >lists ;;
  *install*) test -e lists && for each in redis mariadb; do : >.databases/packages/$each.deb; done ;;
esac
"""

DPKG = r"""#!/bin/sh
case "$2" in
  */redis.deb) at="$3/usr/bin/redis-server" ;;
  */mariadb.deb) at="$3/usr/sbin/mariadbd" ;;
esac
mkdir -p "$(dirname "$at")" "$3/usr/lib/arch-linux-gnu"
printf '#!/bin/sh\necho "${0##*/} $1 with $LD_LIBRARY_PATH"\n' >"$at"
chmod +x "$at"
"""


@pytest.fixture
def machine(tmp_path: pathlib.Path) -> pathlib.Path:
    """A checkout on a machine that has neither apt-get nor a server, and a gate that shows what it finds."""
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci")
    (tmp_path / "bin").mkdir()
    for name in TOOLS:
        program = shutil.which(name)
        assert program is not None
        (tmp_path / "bin" / name).symlink_to(program)
    have(tmp_path, make=GATE)
    return tmp_path


def have(machine: pathlib.Path, **programs: str) -> None:
    for name, text in programs.items():
        path = machine / "bin" / name.replace("_", "-")
        path.write_text(text)
        path.chmod(0o755)


def run(machine: pathlib.Path) -> list[str]:
    """The lines that the gate writes on this machine; it must not fail."""
    done = subprocess.run(
        [machine / ".ci" / "run"],
        env={"PATH": str(machine / "bin")},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def calls(machine: pathlib.Path) -> list[str]:
    """What apt-get was asked for: the last word that is no package."""
    lines = (machine / "calls").read_text().splitlines()
    return [next(word for word in ("update", "install") if f" {word}" in line) for line in lines]


def test_without_apt_one_line_says_what_is_skipped_and_the_gate_goes_on(machine: pathlib.Path) -> None:
    said, asked = run(machine)
    assert "are skipped: real Redis and MariaDB: databases: no apt-get" in said
    assert asked == "make check"


def test_a_network_that_is_away_does_not_fail_the_gate(machine: pathlib.Path) -> None:
    have(machine, apt_get='#!/bin/sh\necho "$*" >>calls\nexit 100\n')
    have(machine, dpkg=DPKG)
    said, asked = run(machine)
    assert "are skipped: real Redis and MariaDB: databases: apt-get update ended with status 100" in said
    assert asked == "make check"
    assert calls(machine) == ["install", "update"]


def test_a_fresh_machine_gets_both_servers_without_their_installation(machine: pathlib.Path) -> None:
    have(machine, apt_get=APT, dpkg=DPKG)
    libraries = f"{machine}/.databases/root/usr/lib/arch-linux-gnu"
    told = [
        "make check",
        f"redis-server --version with {libraries}",
        f"mariadbd --version with {libraries}",
    ]
    assert run(machine) == told
    assert calls(machine) == ["install", "update", "install"]
    assert all("--download-only" in line for line in (machine / "calls").read_text().splitlines()[::2])
    # They are kept.
    assert run(machine) == told
    assert len(calls(machine)) == 3


def test_servers_that_are_installed_are_used(machine: pathlib.Path) -> None:
    server = '#!/bin/sh\necho "${0##*/}, installed"\n'
    have(machine, apt_get=APT, redis_server=server, mariadbd=server)
    assert run(machine) == ["make check", "redis-server, installed", "mariadbd, installed"]
    assert not (machine / "calls").exists()
    assert not (machine / ".databases").exists()


def check(machine: pathlib.Path, *steps: str, skipped: str = "") -> tuple[int, str]:
    """The status and the output of `.ci/check` on this machine, where `make` is what the test made it."""
    done = subprocess.run(
        [machine / ".ci" / "check", *steps],
        env={"PATH": str(machine / "bin"), "SKIPPED": skipped},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout


def test_the_gate_names_each_step_its_seconds_and_what_was_skipped(machine: pathlib.Path) -> None:
    have(
        machine,
        make='#!/bin/sh\ntest $1 = lint || echo "SKIPPED [1] tests/$1.py:3: no such server"\n',
    )
    status, said = check(machine, "lint", "test", "core", skipped="real Redis: no network")
    assert status == 0
    assert re.findall(r"^== (\w+)$", said, re.MULTILINE) == ["lint", "test", "core", "steps", "skipped"]
    assert re.findall(r"^ *\d+ s  (\w+)$", said, re.MULTILINE) == ["lint", "test", "core"]
    assert said.partition("== skipped\n")[2].splitlines() == [
        "real Redis: no network",
        "core:SKIPPED [1] tests/core.py:3: no such server",
        "test:SKIPPED [1] tests/test.py:3: no such server",
    ]
    # Nothing of that run is told again by the next.
    have(machine, make="#!/bin/sh\n")
    assert check(machine, "lint")[1].endswith("== skipped\nnothing\n")


def test_the_gate_ends_at_the_first_step_that_fails_and_says_what_was_not_run(machine: pathlib.Path) -> None:
    have(machine, make="#!/bin/sh\necho ran $1\ntest $1 != types || exit 2\n")
    status, said = check(machine, "lint", "types", "test")
    assert status == 2
    assert re.findall(r"^ran (\w+)$", said, re.MULTILINE) == ["lint", "types"]
    assert "     -    test\n" in said
    assert said.endswith("FAILED: types\n")


def plan(*targets: str) -> str:
    """What make would run, with the environments as they are made."""
    done = subprocess.run(["make", "-n", *targets], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.slow
def test_the_gate_has_every_step() -> None:
    (line,) = [line for line in plan("check").splitlines() if ".ci/check" in line]
    assert line.startswith("SOAK_SECONDS=60 ")
    steps = line.partition(".ci/check ")[2].split()
    assert steps == [
        "layout", "lint", "types", "template", "doctests", "test",
        "slowtests", "portable", "soak", "build", "replay", "docs", "core",
    ]  # fmt: skip
    everything = plan(*steps[:-1])  # the last makes an environment of its own
    for step, part in (
        ("layout", "ruff format --quiet --check"),
        ("lint", "ruff check"),
        ("types", "mypy"),
        ("template", "sam validate --lint"),
        ("doctests", "--doctest-modules"),
        ("test", "pytest -q -n "),
        ("slowtests", " -m slow"),
        ("soak", "tests.soak"),
        ("build", "sam build"),
        ("replay", "tools.replay run"),
        ("docs", "mkdocs build --strict"),
    ):
        assert part in everything, step
    (slow,) = [line for line in plan("slow").splitlines() if ".ci/check" in line]
    assert slow.partition(".ci/check ")[2].split() == steps[steps.index("slowtests") :]


def test_the_core_is_the_coverage_on_python_3_13_and_says_so_where_there_is_none() -> None:
    recipe = (ROOT / "Makefile").read_text().partition("\ncore:")[2].partition("\n\n")[0]
    assert 'echo "SKIPPED core on Python 3.13: no python3.13 was found; name one' in recipe
    assert "$(MAKE) VENV=$$venv" in recipe
    assert " coverage && " in recipe
    everything = plan("coverage")
    assert "coverage report --include='emissary_lib/protocol/*' --fail-under=100" in everything


@pytest.mark.parametrize(("asked", "refused"), [("3.12", True), ("3.11", False)])
def test_an_environment_of_another_python_is_not_taken_for_the_one_that_was_asked_for(
    tmp_path: pathlib.Path, asked: str, refused: bool
) -> None:
    for name, version in (("venv/bin/python", "3.11"), ("asked", asked)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"#!/bin/sh\necho {version}\n")
        (tmp_path / name).chmod(0o755)
    command = ["make", "-n", "layout", f"VENV={tmp_path}/venv", f"PYTHON={tmp_path}/asked"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ("is of Python 3.11, not of " in done.stderr) == refused
    assert (done.returncode != 0) == refused


def targets() -> set[str]:
    return set(re.findall(r"^([a-z]+)(?=[ :])", (ROOT / "Makefile").read_text(), re.MULTILINE)) | {
        "newest",
        ".venv/.dev",
    }


def runs(workflow: dict[Any, Any]) -> list[str]:
    """Each command of a workflow, with what its matrices put in."""
    found = []
    for job in workflow["jobs"].values():
        matrix = job.get("strategy", {}).get("matrix", {})
        for step in job["steps"]:
            command = step.get("run", "")
            tiers = matrix.get("tier", [""])
            found += [command.replace("${{ matrix.tier }}", tier) for tier in tiers]
    return [command for command in found if command]


@pytest.mark.parametrize("name", sorted(WORKFLOWS))
def test_a_workflow_calls_what_exists(name: str) -> None:
    commands = runs(WORKFLOWS[name])
    assert commands
    for command in commands:
        for words in re.findall(r"\bmake (?:PYTHON=\w+ )?(.+)", command):
            assert set(words.split()) <= targets(), command
        for path in re.findall(r"(?<![\w/.])(?:tests|requirements|\.ci)(?:/[\w.]+)+", command):
            assert (ROOT / path).exists(), command
        assert "${{" not in command


@pytest.mark.parametrize("name", sorted(WORKFLOWS))
def test_a_workflow_may_read_and_runs_only_pinned_actions(name: str) -> None:
    workflow = WORKFLOWS[name]
    assert workflow["permissions"] == {"contents": "read"}
    assert "concurrency" in workflow
    for title, job in workflow["jobs"].items():
        assert job["timeout-minutes"] > 0
        assert job.get("permissions", {}) in ({}, {"id-token": "write"})
        assert "permissions" not in job or title == "publish"
    uses = re.findall(r"uses: (.+)", (ROOT / ".github" / "workflows" / name).read_text())
    assert uses
    for each in uses:
        assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", each), each


def test_public_ci_runs_the_whole_gate_on_each_python_and_both_lanes_of_versions() -> None:
    jobs = WORKFLOWS["ci.yml"]["jobs"]
    classified = [
        each.rpartition(" ")[2]
        for each in PROJECT["project"]["classifiers"]
        if each.startswith("Programming Language :: Python :: 3.")
    ]
    assert jobs["linux"]["strategy"]["matrix"] == {"python": classified, "tier": ["test", "slow"]}
    static = " ".join(step.get("run", "") for step in jobs["static"]["steps"])
    assert re.findall(r"(\w+)(?= make|$)", static) == [
        "layout", "lint", "types", "template", "doctests",
    ]  # fmt: skip
    assert {job for job, each in jobs.items() if each.get("continue-on-error")} == {"newest"}
    assert "may fail" in jobs["newest"]["name"]
    assert {"macos", "windows", "lowest", "docs"} <= set(jobs)


def test_pre_commit_has_the_gate_s_steps() -> None:
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert local["repo"] == "local"
    assert [hook["entry"] for hook in local["hooks"]] == [
        f"make {step}" for step in ("layout", "lint", "types", "template")
    ]


def canonical(requirement: str) -> str:
    """The name of a requirement, as an index spells it."""
    name = re.match(r"[\w.-]+", requirement)
    assert name is not None
    return re.sub(r"[-_.]+", "-", name[0]).lower()


def lock(name: str) -> dict[str, int]:
    """The packages of a lock file, and how many hashes each has."""
    text = (ROOT / "requirements" / name).read_text()
    found: dict[str, int] = {}
    for entry in re.split(r"\n(?=\S)", "\n" + re.sub(r"^ *#.*\n?", "", text, flags=re.MULTILINE)):
        if entry.strip():
            package = re.match(r"([\w.-]+)==[\w.]+", entry)
            assert package is not None, entry
            found[package[1]] = entry.count("--hash=sha256:")
    return found


@pytest.mark.parametrize("name", ["dev", "demo", "docs", "fuzz"])
def test_the_lock_has_every_dependency_with_hashes(name: str) -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    wanted = [*PROJECT["project"]["dependencies"], *PROJECT["build-system"]["requires"]]
    left = [name]
    while left:
        for each in extras[left.pop()]:
            more = re.fullmatch(r"emissary-lib\[([\w,]+)\]", each)
            if more:
                left += more[1].split(",")
            else:
                wanted.append(each)
    locked = lock(f"{name}.txt")
    assert {canonical(each) for each in wanted} - set(locked) == set()
    assert all(locked.values())


def test_the_locks_name_no_index_and_the_demo_s_packages_are_the_suite_s() -> None:
    texts = {path.name: path.read_text() for path in (ROOT / "requirements").iterdir()}
    assert set(texts) == {"demo.txt", "dev.txt", "docs.txt", "fuzz.txt", "lock.txt"}
    assert all("://" not in text and "--index" not in text for text in texts.values())
    pins = {name: set(re.findall(r"^[\w.-]+==[^ \\\n]+", text, re.MULTILINE)) for name, text in texts.items()}
    assert pins["demo.txt"] < pins["dev.txt"]
    # Which of the two is for whom, their marks say.
    assert {pin.partition("==")[0] for pin in pins["fuzz.txt"] - pins["dev.txt"]} == {"atheris"}
    # The site is built where the suite is run: of what both need there is one version.
    new, old = ({pin.partition("==")[0] for pin in each} for each in (pins["docs.txt"], pins["dev.txt"]))
    assert {pin.partition("==")[0] for pin in pins["docs.txt"] - pins["dev.txt"]} == new - old


def test_what_both_ends_of_a_shared_session_stand_on_is_one_version_for_library_and_functions() -> None:
    functions = (ROOT / "functions" / "requirements.in").read_text().splitlines()
    (wanted,) = [each for each in PROJECT["project"]["dependencies"] if canonical(each) == "h2"]
    assert wanted in functions
    pins = [
        set(re.findall(r"^(?:h2|hpack|hyperframe)==[^ \\\n]+", path.read_text(), re.MULTILINE))
        for path in (ROOT / "functions" / "requirements.txt", ROOT / "requirements" / "dev.txt")
    ]
    assert pins[0] == pins[1]
    assert len(pins[0]) == 3


def test_every_dependency_has_a_lower_bound() -> None:
    for group in (PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"].values()):
        for each in group:
            assert ">=" in each or each.startswith("emissary-lib["), each
