"""What every test runs under: hypothesis profiles, and a check that nothing is left behind."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, settings

from emissary_lib.system import signals
from tests.helpers.leaks import LeakCheck
from tests.helpers.patience import HANG

_QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large]
settings.register_profile(
    "default", deadline=None, max_examples=50, derandomize=True, database=None, suppress_health_check=_QUIET
)
settings.register_profile("gate", settings.get_profile("default"), max_examples=300)
settings.register_profile("ci", settings.get_profile("default"), max_examples=500)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


#: What a make that runs the tests hands down, command-line variables included: a test's own make is not told.
_FROM_MAKE = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "PYTHON", "VENV")


def pytest_configure(config: pytest.Config) -> None:
    for name in _FROM_MAKE:
        os.environ.pop(name, None)
    for number in signals("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM"):
        # In the background of a script, or under nohup. What our tests start would be told to ignore it, too.
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
    config.pluginmanager.register(LeakCheck())


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever needs the built artifacts is slow: building them alone takes ten seconds of processor time."""
    for item in items:
        if "artifacts" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> pathlib.Path:
    """What ``sam build`` makes of template.yaml, built once for all workers: a folder for each function."""
    import fcntl  # not on Windows, where nobody asks for this

    base = tmp_path_factory.getbasetemp()
    base = base if worker_id == "master" else base.parent
    folder = base / "sam"
    with open(base / "sam.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # whoever comes first builds, the others wait for it
        if not folder.exists():
            _build(base / "sam.part")
            (base / "sam.part").rename(folder)
    return folder


def _build(folder: pathlib.Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "samcli", "build", "--template", "template.yaml", "--build-dir", str(folder)],
        cwd=pathlib.Path(__file__).resolve().parents[1],
        env={**os.environ, "SAM_CLI_TELEMETRY": "0", "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=4 * HANG,
        check=False,
    )
    assert done.returncode == 0, done.stderr
