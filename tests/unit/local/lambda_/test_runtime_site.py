"""The folder with what Lambda's runtime brings: all of that, and nothing else."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

from emissary_local.errors import LocalCloudError
from emissary_local.lambda_ import runtime_site
from emissary_local.lambda_.runtime_site import make_runtime_site


def run(site: pathlib.Path, source: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-S", "-B", "-c", source],
        env={"PYTHONPATH": str(site), "AWS_LAMBDA_RUNTIME_API": "127.0.0.1:1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_sdk_and_the_runtime_client_work_from_there(tmp_path: pathlib.Path) -> None:
    site = make_runtime_site(tmp_path / "site")
    script = "import boto3, awslambdaric.bootstrap; boto3.client('sts', region_name='us-east-1')"
    done = run(site, script)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("module", ["aws_lambda_powertools", "websocket", "dns", "moto"])
def test_what_lambda_has_not_is_not_there(tmp_path: pathlib.Path, module: str) -> None:
    site = make_runtime_site(tmp_path / "site")
    assert f"No module named '{module}'" in run(site, f"import {module}").stderr


def test_a_package_that_is_not_installed_is_named(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime_site, "RUNTIME_MODULES", ("no_such_module",))
    with pytest.raises(LocalCloudError, match=r"no_such_module is not installed.*emissary-lib\[local\]"):
        make_runtime_site(tmp_path / "site")
