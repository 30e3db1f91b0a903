"""What a service manager is told, and that nobody is worse off without one."""

from __future__ import annotations

import os
import pathlib
import socket
import sys

import pytest

from emissary_lib.cli.systemd import READY, notify
from tests.helpers.patience import HANG


@pytest.mark.parametrize(
    "abstract",
    [False, pytest.param(True, marks=pytest.mark.skipif(sys.platform != "linux", reason="Linux's"))],
)
def test_the_socket_that_is_named_is_told(
    abstract: bool, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = f"@emissary-test-{os.getpid()}" if abstract else str(tmp_path / "n")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name[1:] if abstract else "./n")
        manager.settimeout(HANG)
        notify(READY, {"NOTIFY_SOCKET": name})
        assert manager.recv(100) == b"READY=1"


@pytest.mark.parametrize(
    "name", [None, "", "relative", "vsock:2:1", "/nowhere/at/all", "@nobody-there", "/" * 500]
)
def test_without_a_socket_nothing_happens(name: str | None) -> None:
    notify(READY, {} if name is None else {"NOTIFY_SOCKET": name})
