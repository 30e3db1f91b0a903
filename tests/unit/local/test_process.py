"""What the local cloud needs of the machine."""

from __future__ import annotations

import pytest

from emissary_local.errors import LocalCloudError, MissingPackagesError
from emissary_local.lambda_.forkserver import exit_reason
from emissary_local.process import check_requirements


def test_this_machine_meets_the_requirements() -> None:
    check_requirements()


def test_other_systems_are_refused_by_name() -> None:
    with pytest.raises(LocalCloudError, match="runs on Linux only, not on darwin"):
        check_requirements(platform="darwin")


def test_missing_packages_are_named_with_the_command_that_installs_them() -> None:
    with pytest.raises(
        MissingPackagesError, match=r"needs no_such_package; .*pip install 'emissary-lib\[local\]'"
    ):
        check_requirements(modules=("json", "no_such_package"))


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (0, "Runtime exited without providing a reason"),
        (3 << 8, "Runtime exited with error: exit status 3"),
        (9, "Runtime exited with error: signal: killed"),
        (12, "Runtime exited with error: signal: 12"),
    ],
)
def test_end_of_a_process_is_put_in_lambdas_words(status: int, reason: str) -> None:
    assert exit_reason(status) == reason
