"""The artifacts: only what each function needs, the same bytes every time, nothing from this machine."""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import subprocess
import sys

import dns.message
import dns.rrset
import pytest

from emissary_local.template.template import read_template
from tests.helpers.local_cloud import LINUX_ONLY, PARAMETERS
from tests.helpers.sam_template import source
from tests.infra.documents import tables
from tools.artifacts import artifact, packages
from tools.artifacts.__main__ import CACHE, LOCK, ROOT, WANTED, main
from tools.artifacts.closure import Closure
from tools.artifacts.errors import BuildError
from tools.artifacts.imports import Import, imports_at_run_time, imports_of

FUNCTIONS = ["ConnectFunction", "DefaultFunction", "DisconnectFunction", "RelayFunction"]

pytestmark = LINUX_ONLY


def write(folder: pathlib.Path, **modules: str) -> None:
    for name, text in modules.items():
        path = folder.joinpath(*name.split("__")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        for parent in path.relative_to(folder).parents[:-1]:
            (folder / parent / "__init__.py").touch()


def closure_of(tmp_path: pathlib.Path, module: str) -> set[str]:
    closure = Closure(tmp_path / "ours", tmp_path / "packages")
    closure.add(module)
    return set(closure.files)


# --- What is imported


def test_imports_are_found_at_any_depth_and_told_apart() -> None:
    source = """
import a.b
from . import c
from ..d import e
if TYPE_CHECKING:
    import never
else:
    import f
try:
    import g
except ImportError:
    import h
def function():
    import i
"""
    assert imports_of(source, "top.inner.module", is_package=False) == [
        Import("a.b"),
        Import("top.inner", ("c",)),
        Import("top.d", ("e",)),
        Import("f", (), True),
        Import("g", (), True),
        Import("h"),
        Import("i", (), True),
    ]


def test_a_relative_import_of_a_package_starts_at_the_package() -> None:
    assert imports_of("from .x import y", "top.inner", is_package=True) == [Import("top.inner.x", ("y",))]


def test_an_import_by_name_is_noticed() -> None:
    assert imports_at_run_time("importlib.import_module(name)")
    assert not imports_at_run_time("# import_module is not called here\nname = 'import_module'")


def test_a_closure_holds_what_is_reached_with_its_packages_and_no_more(tmp_path: pathlib.Path) -> None:
    write(tmp_path / "ours", top__used="from other import thing\n", top__unused="import nowhere\n")
    write(
        tmp_path / "packages",
        other__thing="def f():\n    import other.lazy\n",
        other__lazy="",
        other__idle="",
    )
    assert closure_of(tmp_path, "top.used") == {"top", "top.used", "other", "other.thing", "other.lazy"}


@pytest.mark.parametrize("source", ["import missing", "def f():\n    import missing"])
def test_what_one_of_our_modules_misses_fails_the_build_even_within_a_function(
    tmp_path: pathlib.Path, source: str
) -> None:
    write(tmp_path / "ours", top=source)
    with pytest.raises(BuildError, match=r"top imports missing, .* functions/requirements\.in"):
        closure_of(tmp_path, "top")


def test_what_a_package_misses_fails_the_build_only_if_it_is_imported_for_certain(
    tmp_path: pathlib.Path,
) -> None:
    write(tmp_path / "ours", top="import other")
    write(tmp_path / "packages", other="try:\n    import missing\nexcept ImportError:\n    pass\n")
    assert closure_of(tmp_path, "top") == {"top", "other"}
    write(tmp_path / "packages", other="import missing")
    with pytest.raises(BuildError, match="other imports missing"):
        closure_of(tmp_path, "top")


def test_an_import_by_name_that_nobody_has_looked_up_fails_the_build(tmp_path: pathlib.Path) -> None:
    write(tmp_path / "ours", top="import other")
    write(tmp_path / "packages", other="import importlib\nimportlib.import_module(NAME)")
    with pytest.raises(BuildError, match=r"other imports by name at run time; .*known\.py"):
        closure_of(tmp_path, "top")


def test_of_a_bare_package_the_artifact_has_the_module_that_is_named_alone(tmp_path: pathlib.Path) -> None:
    write(tmp_path / "ours", top="from other.inner import thing")
    write(tmp_path / "packages", other__inner="", other__heavy="")
    gathers = tmp_path / "packages" / "other" / "__init__.py"
    gathers.write_text('"""Short names."""\nfrom .heavy import Heavy\n__all__ = ["Heavy"]\n')
    closure = Closure(tmp_path / "ours", tmp_path / "packages", {"other"})
    closure.add("top")
    assert closure.relative_paths() == {
        "top.py": tmp_path / "ours" / "top.py",
        "other/__init__.py": None,
        "other/inner.py": tmp_path / "packages" / "other" / "inner.py",
    }


@pytest.mark.parametrize("more", ["def f(): pass", "class A: pass", "if x:\n    import y", "x += 1"])
def test_a_bare_package_that_has_come_to_do_more_fails_the_build(tmp_path: pathlib.Path, more: str) -> None:
    write(tmp_path / "ours", top="import other.inner")
    write(tmp_path / "packages", other__inner="")
    (tmp_path / "packages" / "other" / "__init__.py").write_text(f"from .inner import x\n{more}\n")
    with pytest.raises(BuildError, match=r"other does more than gather names by now; .*known\.py"):
        Closure(tmp_path / "ours", tmp_path / "packages", {"other"}).add("top")


@pytest.mark.parametrize("sdk", ["boto3", "botocore.config"])
def test_the_sdk_of_lambda_s_runtime_is_not_ours_to_import(tmp_path: pathlib.Path, sdk: str) -> None:
    """It is there; but a start that loads it takes twice as long."""
    write(tmp_path / "ours", top=f"import {sdk}")
    with pytest.raises(BuildError, match=f"top imports {sdk}, neither ours nor in"):
        closure_of(tmp_path, "top")


# --- Packages


def test_every_requirement_is_pinned_and_hashed_and_every_wanted_one_is_there() -> None:
    lines = [line for line in LOCK.read_text().splitlines() if not line.startswith("#")]
    pinned = {}
    for line in lines:
        found = re.fullmatch(r"([a-z0-9-]+)==(\S+) --hash=sha256:[0-9a-f]{64}", line)
        assert found, line
        pinned[found[1]] = found[2]
    wanted = {line.split(">=")[0] for line in WANTED.read_text().splitlines() if not line.startswith("#")}
    assert wanted <= set(pinned)


def test_a_package_that_does_not_match_its_hash_is_refused(tmp_path: pathlib.Path) -> None:
    lock = tmp_path / "requirements.txt"
    line = next(line for line in LOCK.read_text().splitlines() if line.startswith("websocket-client"))
    lock.write_text(re.sub("[0-9a-f]{64}", "0" * 64, line))
    with pytest.raises(BuildError, match=r"(?i)hash"):
        packages.install(lock, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_compiled_package_is_refused(tmp_path: pathlib.Path) -> None:
    (tmp_path / "fast.so").touch()
    with pytest.raises(BuildError, match=r"not pure Python: fast\.so"):
        packages._refuse_compiled(tmp_path)


# --- Artifacts


def test_sam_builds_every_function_of_the_template(artifacts: pathlib.Path) -> None:
    template = read_template(ROOT / "template.yaml", PARAMETERS)
    assert sorted(template.functions) == FUNCTIONS
    for name, spec in template.functions.items():
        assert spec.handler == f"{artifact.handler_module(name)}.lambda_handler"
        assert spec.runtime == f"python{packages.PYTHON_VERSION}"
        assert (artifacts / name).joinpath(*spec.handler.split(".")[:-1]).with_suffix(".py").is_file()


@pytest.mark.parametrize("function", FUNCTIONS)
def test_an_artifact_is_small_and_holds_source_and_licences_only(
    artifacts: pathlib.Path, function: str
) -> None:
    folder = artifacts / function
    assert artifact.size(folder) < artifact.MAX_BYTES
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert all(name.endswith(".py") or name.startswith("licences/") for name in files)
    assert "licences/emissary/LICENSE" in files
    packaged = {name.partition("/")[0].removesuffix(".py") for name in files} - {"licences"}
    assert {"boto3", "botocore", "samcli", "tests", "tools"}.isdisjoint(packaged)
    assert {"jmespath", "typing_extensions"}.isdisjoint(packaged), "of Powertools, what we use"
    others = {path.name for path in (ROOT / "functions").iterdir()} - {"common", "__init__.py"}
    route = artifact.handler_module(function).split(".")[1]
    present = {name for name in others if any(each.startswith(f"functions/{name}/") for each in files)}
    assert present == {route}


def test_who_chooses_the_processor_is_told_that_one_build_is_right_for_both() -> None:
    """As the test before shows: an artifact holds Python's source and nothing else."""
    (row,) = [row for row in tables("docs/operations.md", "Parameters")[0] if row[0] == "Architecture"]
    for text in (source()["Parameters"]["Architecture"]["Description"], row[2]):
        assert "One build is right for both" in text


def test_only_the_relay_has_what_only_the_relay_needs(artifacts: pathlib.Path) -> None:
    for package in ("dns/rdtypes/IN/A.py", "websocket/_core.py", "emissary_lib/tunnel/driver.py"):
        having = [name for name in FUNCTIONS if (artifacts / name / package).exists()]
        assert having == ["RelayFunction"]


def test_the_relay_s_artifact_reads_a_name_server_s_answers(artifacts: pathlib.Path) -> None:
    """Without most of dnspython's types of records: one that it does not know stands in nobody's way."""
    asked = dns.message.make_query("db.internal", "A", use_edns=0)
    found = dns.message.make_response(asked)
    for section, record in (
        (found.answer, "db.internal. 60 IN CNAME other.internal."),
        (found.answer, "other.internal. 60 IN A 10.0.0.7"),
        (found.authority, "internal. 60 IN NS ns.internal."),
        (found.additional, 'ns.internal. 60 IN TXT "unknown"'),
        (found.additional, "ns.internal. 60 IN MX 5 mail.internal."),
    ):
        name, seconds, _class, kind, text = record.split(" ", 4)
        section.append(dns.rrset.from_text(name, int(seconds), "IN", kind, text))
    none = dns.message.make_response(asked)
    none.authority.append(dns.rrset.from_text("internal.", 60, "IN", "SOA", "ns. me. 1 2 3 4 5"))
    script = """
import sys, functions.relay.name_server, dns.message, dns.rdata, dns.resolver
for wire in sys.argv[1:]:
    message = dns.message.from_wire(bytes.fromhex(wire))
    print("found", *dns.resolver.Answer(message.question[0].name, 1, 1, message))
print(dns.rdata.get_rdata_class(1, 16).__name__)
"""
    folder = artifacts / "RelayFunction"
    done = subprocess.run(
        [sys.executable, "-S", "-B", "-c", script, found.to_wire().hex(), none.to_wire().hex()],
        cwd=folder,
        env={"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("found 10.0.0.7\nfound\nGenericRdata\n", "")


def test_no_handler_has_what_shared_sessions_stand_on(artifacts: pathlib.Path) -> None:
    """The bridge copies their bytes and knows their name."""
    for function in FUNCTIONS[:-1]:
        assert not any((artifacts / function / package).exists() for package in ("h2", "hpack", "hyperframe"))


def test_what_shared_sessions_stand_on_can_be_packaged(artifacts: pathlib.Path) -> None:
    closure = Closure(ROOT, packages.install(LOCK, CACHE))
    closure.add("emissary_lib.protocol.mux.relay")
    assert {"h2.connection", "hpack.hpack", "hyperframe.frame"} <= set(closure.files)


def test_a_second_build_elsewhere_gives_the_same_bytes(
    artifacts: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    copy = tmp_path / "elsewhere"
    ours = ("functions", "emissary_lib", "tools")
    for name in ours:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "LICENSE", copy)  # with a time and modes of its own
    for path in copy.rglob("*.py"):
        path.chmod(0o600)
        os.utime(path, (1, 1))
    site = packages.install(LOCK, CACHE)
    before = os.umask(0o077)
    try:
        for function in FUNCTIONS:
            into = tmp_path / function
            artifact.build(function, into, root=copy, packages=site)
            assert artifact.digest(into) == artifact.digest(artifacts / function)
    finally:
        os.umask(before)


def test_a_changed_byte_mode_or_name_changes_the_digest(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "a" / "b.py"
    file.parent.mkdir()
    file.write_text("1")
    os.utime(file, (1, 1))
    digests = {artifact.digest(tmp_path)}
    file.chmod(0o600)
    digests.add(artifact.digest(tmp_path))
    file.write_text("2")
    os.utime(file, (1, 1))
    digests.add(artifact.digest(tmp_path))
    file.rename(file.with_name("c.py"))
    digests.add(artifact.digest(tmp_path))
    assert len(digests) == 4


def test_a_folder_that_is_not_empty_is_left_alone(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").touch()
    assert main(["function", "RelayFunction", str(tmp_path)]) == 1
    assert "is not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_an_artifact_that_is_too_large_names_its_largest_files(tmp_path: pathlib.Path) -> None:
    site = packages.install(LOCK, CACHE)
    rules = artifact.Rules(max_bytes=1000)
    with pytest.raises(BuildError, match=r"RelayFunction has \d+ bytes, over 1000; largest: \S+\.py"):
        artifact.build("RelayFunction", tmp_path / "relay", root=ROOT, packages=site, rules=rules)


@pytest.mark.parametrize("name", ["Relay", "Function", ""])
def test_a_name_that_is_no_function_is_told(name: str) -> None:
    with pytest.raises(BuildError, match="no logical id of a function"):
        artifact.handler_module(name)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_start_loads_no_sdk_and_a_handler_s_no_dataclasses(
    artifacts: pathlib.Path, tmp_path: pathlib.Path, function: str
) -> None:
    from emissary_local.lambda_.runtime_site import make_runtime_site

    folder, site = artifacts / function, make_runtime_site(tmp_path / "runtime")
    script = f"import sys, {artifact.handler_module(function)}; print(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-S", "-B", "-c", script],
        cwd=folder,
        env={"PYTHONPATH": f"{folder}{os.pathsep}{site}"},
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert {"functions", "aws_lambda_powertools", "ssl"} <= loaded
    assert {"boto3", "botocore", "urllib3", "jmespath", "dateutil", "dns", "asyncio"}.isdisjoint(loaded)
    # Half a millisecond of CPU for each class: what has such fields is a Record. h2 has some.
    assert ("dataclasses" in loaded) is (function == "RelayFunction")


def test_an_artifact_s_modules_can_be_imported_with_the_runtime_s_packages_alone(
    artifacts: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """Every one of them, so that what is only reached late is there too."""
    from emissary_local.lambda_.runtime_site import make_runtime_site

    site = make_runtime_site(tmp_path / "runtime")
    script = """
import importlib, pathlib, sys
for path in sorted(pathlib.Path().rglob("*.py")):
    parts = path.with_suffix("").parts
    if parts[0] not in ("functions", "emissary_lib"):
        continue
    importlib.import_module(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
"""
    for function in FUNCTIONS:
        folder = artifacts / function
        done = subprocess.run(
            [sys.executable, "-S", "-B", "-c", script],
            cwd=folder,
            env={"PYTHONPATH": f"{folder}{os.pathsep}{site}"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
