"""What every test runs under: hypothesis profiles, and a check that nothing is left behind."""

from __future__ import annotations

import gc
import os
import pathlib
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator

import pytest
from hypothesis import HealthCheck, settings

#: How long a test's threads, processes and sockets may take to go away after it, in seconds.
GRACE = 5.0

_QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large]
settings.register_profile(
    "default", deadline=None, max_examples=100, derandomize=True, database=None, suppress_health_check=_QUIET
)
settings.register_profile("ci", settings.get_profile("default"), max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(WiderFixtures())
    config.addinivalue_line(
        "markers",
        "shared_world: the test uses threads, processes or sockets that live longer than it on purpose, "
        "because a fixture of a wider scope owns and closes them",
    )


def _children() -> set[int]:
    found: set[int] = set()
    for listing in pathlib.Path("/proc/self/task").glob("*/children"):
        try:
            found.update(map(int, listing.read_text().split()))
        except OSError:  # the thread ended meanwhile
            continue
    return found


def _sockets() -> set[str]:
    found: set[str] = set()
    for entry in pathlib.Path("/proc/self/fd").iterdir():
        try:
            target = os.readlink(entry)
        except OSError:  # the descriptor of this very listing
            continue
        if target.startswith("socket:"):
            found.add(target)
    return found


class Baseline:
    """What may exist after a test: what existed before it, and what wider fixtures have made since."""

    def __init__(self) -> None:
        self._threads: set[threading.Thread] = set()
        self._children: set[int] = set()
        self._sockets: set[str] = set()

    def allow_present(self) -> None:
        """Whatever exists now is no fault of the test's."""
        self._threads.update(threading.enumerate())
        self._children |= _children()
        self._sockets |= _sockets()

    def left(self) -> str:
        """What exists beyond that, in words; empty when nothing does."""
        parts = [f"thread {thread.name}" for thread in set(threading.enumerate()) - self._threads]
        parts += [f"child process {pid}" for pid in _children() - self._children]
        return ", ".join([*parts, *sorted(_sockets() - self._sockets)])


_BASELINE = pytest.StashKey[Baseline]()


class WiderFixtures:
    """A fixture that outlives the test may be made in the middle of it: its things are its own.

    A plugin of its own, because pytest does not ask a directory's conftest about session fixtures.
    """

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[object], request: pytest.FixtureRequest
    ) -> Generator[None, object, object]:
        try:
            return (yield)
        finally:
            baseline = request.session.stash.get(_BASELINE, None)
            if fixturedef.scope != "function" and baseline is not None:
                baseline.allow_present()


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


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a thread, a child process or a socket, a short grace after its end."""
    if request.node.get_closest_marker("shared_world") or not pathlib.Path("/proc/self/fd").exists():
        yield
        return
    baseline = request.session.stash[_BASELINE] = Baseline()
    baseline.allow_present()
    yield
    if not baseline.left():
        return
    gc.collect()
    deadline = time.monotonic() + GRACE
    while (left := baseline.left()) and time.monotonic() < deadline:
        time.sleep(0.01)  # a thread that was joined is gone at once; a killed process takes a moment
    assert not left, f"left behind: {left}"
