"""What a command says of an error: one line with the cause and what to do, whatever the error is."""

from __future__ import annotations

import errno
import os
import socket

import pytest

from emissary_lib import __version__
from emissary_lib.cli.failure import explain
from emissary_lib.exceptions import ConfigError, OutputError, PackageError, ReaderGoneError
from emissary_lib.exit_status import Exit

NOTHING_LEFT = "this machine gives no more of what is needed: "


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (ConfigError("EMISSARY_URL is not set"), Exit.SETTINGS, "EMISSARY_URL is not set"),
        (KeyboardInterrupt(), Exit.INTERRUPTED, "interrupted"),
        (OutputError("no room"), Exit.OUTPUT, "no room"),
        (ReaderGoneError("broken pipe"), Exit.READER_GONE, ""),
        (PackageError("another websocket"), Exit.USAGE, "another websocket"),
        (MemoryError(), Exit.RESOURCES, NOTHING_LEFT + "Cannot allocate memory"),
        (RuntimeError("can't start new thread"), Exit.RESOURCES, NOTHING_LEFT + "can't start new thread"),
        (OSError(errno.EMFILE, "x"), Exit.RESOURCES, NOTHING_LEFT + "Too many open files"),
        (BlockingIOError(errno.EAGAIN, "x"), Exit.RESOURCES, NOTHING_LEFT + os.strerror(errno.EAGAIN)),
        (FileNotFoundError(errno.ENOENT, "x"), Exit.FAILED, "No such file or directory"),
        (PermissionError(errno.EACCES, "x", "/a/b"), Exit.FAILED, "Permission denied: /a/b"),
        (OSError("no number"), Exit.FAILED, "no number"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_an_error_is_a_status_and_one_line(error: BaseException, status: Exit, said: str) -> None:
    failure = explain(raised(error))
    assert failure.status is status
    assert failure.message.startswith(said)
    assert failure.message or not said
    assert "\n" not in failure.message


@pytest.mark.parametrize(
    "error", [ValueError("a\n  bug"), AssertionError(), RecursionError("too deep"), KeyError("name")]
)
def test_what_nobody_has_foreseen_is_our_fault_and_says_how_to_report_it(error: Exception) -> None:
    failure = explain(raised(error))
    assert failure.status is Exit.FAULT
    assert failure.message.startswith(f"a fault of emissary {__version__} itself: {type(error).__name__}")
    assert " at test_failure.py:" in failure.message
    assert failure.message.endswith("please report it, with the traceback that EMISSARY_DEBUG=1 shows")
    assert "\n" not in failure.message


def test_a_package_of_an_extra_is_named_with_the_extra() -> None:
    missing = ModuleNotFoundError("No module named 'boto3'", name="boto3")
    assert explain(missing, "aws") == (
        Exit.USAGE,
        "the package boto3 is not installed: pip install 'emissary-lib[aws]'",
    )


@pytest.mark.parametrize("number", [errno.ECONNREFUSED, errno.EMFILE])
def test_an_error_of_a_socket_has_the_words_that_the_system_has_for_it(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Symptom: "Unknown error", for Windows has them apart from all others."""
    monkeypatch.setattr(socket, "errorTab", {number: "The peer said no."}, raising=False)
    assert "The peer said no." in explain(OSError(number, "x")).message


def test_what_is_missing_without_an_extra_is_missing_of_our_own() -> None:
    failure = explain(
        ModuleNotFoundError("No module named 'emissary_lib.tunnel'", name="emissary_lib.tunnel")
    )
    assert failure == (
        Exit.USAGE,
        "the installation is not whole: No module named 'emissary_lib.tunnel'; "
        "pip install --force-reinstall emissary-lib",
    )
