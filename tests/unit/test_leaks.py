"""Each planted leak fails its own test, by name, and no other: in one process and in several."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest

from tests.helpers.patience import HANG

ROOT = pathlib.Path(__file__).resolve().parents[2]

CONFTEST = """
from tests.helpers.leaks import LeakCheck

def pytest_configure(config):
    config.pluginmanager.register(LeakCheck(patience={patience}))
"""

LEAKS = """
import os, socket, subprocess, sys, threading
import pytest

FOREVER, KEPT = threading.Event(), []

def planted_function():
    FOREVER.wait()

def start(thread):
    thread.daemon = True
    thread.start()

def test_thread():
    start(threading.Thread(target=planted_function, name="planted-thread"))

def test_clean_after_a_thread():
    with socket.socket():
        pass

def test_timer():
    start(threading.Timer(3600, planted_function))

def test_no_timer_is_there_any_more():
    assert not [each for each in threading.enumerate() if isinstance(each, threading.Timer)]

def test_process():
    KEPT.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)  # planted"]))

def test_clean_after_a_process():
    assert all(child.poll() is not None for child in KEPT if isinstance(child, subprocess.Popen))

def test_process_that_nobody_waited_for():
    KEPT.append(subprocess.Popen([sys.executable, "-c", ""]))
    os.waitid(os.P_PID, KEPT[-1].pid, os.WEXITED | os.WNOWAIT)

def test_socket():
    KEPT.append(socket.create_server(("127.0.0.1", 0)))

def test_clean_after_a_socket():
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()

def test_that_fails_by_itself():
    start(threading.Thread(target=planted_function, name="planted-beside"))
    assert not "an error of its own"

@pytest.fixture(scope="class")
def lender():
    start(threading.Thread(target=planted_function, name="planted-by-fixture"))

@pytest.fixture(scope="class")
def borrower(lender):
    thread = threading.Thread(target=FOREVER.wait, args=(0.05,))
    thread.start()
    yield
    thread.join()

class TestFixture:
    def test_one(self, request):
        request.getfixturevalue("borrower")

    def test_two(self, borrower):
        pass

def test_clean_at_last():
    pass
"""

SLOW = """
import threading

def test_thread_that_ends_late():
    threading.Thread(target=threading.Event().wait, args=(0.5,)).start()
"""


def run(folder: pathlib.Path, patience: float, text: str, *options: str) -> dict[str, str]:
    """Run planted tests; gives the errors of those that failed."""
    (folder / "conftest.py").write_text(CONFTEST.format(patience=patience))
    (folder / "test_planted.py").write_text(text)
    report = folder / "report.xml"
    off = [f"-pno:{name}" for name in ("cacheprovider", "hypothesispytest", "timeout")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *off, f"--junitxml={report}", *options, "test_planted.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=2 * HANG,
        check=False,
    )
    assert report.exists(), done.stdout + done.stderr
    failed: dict[str, str] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        for element in (*case.iter("failure"), *case.iter("error")):
            name = str(case.get("name"))
            failed[name] = f"{failed.get(name, '')}{element.get('message')}\n"
    return failed


@pytest.mark.skipif(not pathlib.Path("/proc/self/fd").exists(), reason="no /proc tells children and sockets")
@pytest.mark.parametrize(
    "options",
    [[], pytest.param(["-n2", "--dist=load"], marks=pytest.mark.slow)],
    ids=["one process", "two workers"],
)
def test_a_leak_fails_the_test_that_left_it_and_no_other(tmp_path: pathlib.Path, options: list[str]) -> None:
    failed = run(tmp_path, 0.2, LEAKS, *options)
    expected = {
        "test_thread": "left behind: thread planted-thread in planted_function",
        "test_timer": "left behind: timer Thread-",
        "test_process": "import time; time.sleep(3600)  # planted",
        "test_process_that_nobody_waited_for": "(ended, nobody waited for it)",
        "test_socket": "left behind: socket:[",
        "test_that_fails_by_itself": "an error of its own",
        "test_two": "fixture lender left behind: thread planted-by-fixture in planted_function",
    }
    if options:
        failed.pop("test_one", None)  # it may have had a worker, and so a fixture, of its own
    assert failed.keys() == expected.keys()
    for name, words in expected.items():
        assert words in failed[name]
    assert "planted_function" in failed["test_timer"]
    assert "at ('127.0.0.1', " in failed["test_socket"]
    assert "left behind: thread planted-beside" in failed["test_that_fails_by_itself"]


def test_what_ends_late_is_waited_for(tmp_path: pathlib.Path) -> None:
    assert run(tmp_path, HANG, SLOW) == {}
