"""What every test runs under: hypothesis profiles, and a check that nothing is left behind."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, settings

from tests.helpers.leaks import LeakCheck

_QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large]
settings.register_profile(
    "default", deadline=None, max_examples=100, derandomize=True, database=None, suppress_health_check=_QUIET
)
settings.register_profile("ci", settings.get_profile("default"), max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(LeakCheck())


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """What ``sam build`` makes of template.yaml, built once: a folder for each function."""
    folder = tmp_path_factory.mktemp("sam") / "build"
    done = subprocess.run(
        [sys.executable, "-m", "samcli", "build", "--template", "template.yaml", "--build-dir", str(folder)],
        cwd=pathlib.Path(__file__).resolve().parents[1],
        env={**os.environ, "SAM_CLI_TELEMETRY": "0", "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder
