"""``.ci/run``: it fetches the servers that it lacks, and goes on without them where it cannot."""

from __future__ import annotations

import pathlib
import shutil
import subprocess

import pytest

from tests.infra.documents import ROOT

#: What the scripts call that is neither apt's nor the gate's.
TOOLS = ["bash", "chmod", "dirname", "env", "find", "mkdir", "rm", "sh", "timeout"]

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
    assert "are skipped" in said
    assert asked == "make check"


def test_a_network_that_is_away_does_not_fail_the_gate(machine: pathlib.Path) -> None:
    have(machine, apt_get='#!/bin/sh\necho "$*" >>calls\nexit 100\n')
    said, asked = run(machine)
    assert "are skipped" in said
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
