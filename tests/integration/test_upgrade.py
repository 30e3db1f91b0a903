"""Upgrade and way back: each part of one version with those of another, and versions changed under sessions.

The other version is the last one that knew neither shared relays nor short messages
(:mod:`tests.helpers.versions`). Both are run from built artifacts, their dialers in processes of their own.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import pathlib
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Final

import pytest

from emissary_lib.protocol.auth.keys import format_keys
from emissary_local import Faults, LocalCloud
from tests.helpers.dialer_process import DialerProcess, FailedError, dialer_process
from tests.helpers.local_cloud import LINUX_ONLY, PARAMETERS, ROOT
from tests.helpers.patience import HANG
from tests.helpers.servers import Server
from tests.helpers.versions import FUNCTIONS, HANDLERS, Front, Version, front_of, version_before

pytestmark = [LINUX_ONLY, pytest.mark.slow]

#: Bytes that go each way over a connection, and over one of which there are many.
SIZE: Final = 3_000_000
LITTLE: Final = 100_000

#: Whose dialer it is, and its options. The version before gives each connection a relay of its own.
DIALERS: Final[Mapping[str, tuple[str, dict[str, int]]]] = {
    "old": ("old", {}),
    "own": ("new", {"connections_per_relay": 1}),
    "shared": ("new", {"connections_per_relay": 32}),
}

FULL: Final = r"SessionLimitError.*limit of 2 sessions"

Versions = Mapping[str, Version]


@pytest.fixture(scope="module")
def versions(artifacts: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> Versions:
    return {"old": version_before(tmp_path_factory.mktemp("before")), "new": Version(ROOT, artifacts)}


@dataclass
class Stack:
    """A stack whose functions' versions change.

    Args:
        versions: Both.
        cloud: Where it is deployed.
        front: Its address.
        target: What dialers dial.
        parameters: Of the template.
        dialers: Ends them.
        go_on: While it is not set, the target reads no more once it has sent something back.
    """

    versions: Versions
    cloud: LocalCloud
    front: Front
    target: tuple[str, int]
    parameters: dict[str, str]
    dialers: contextlib.ExitStack
    go_on: threading.Event

    def update(self, version: str, *functions: str) -> None:
        """Deploy another version of some functions; of all, if none is named."""
        other = self.versions[version]
        self.cloud.update(
            other.template,
            artifacts=other.artifacts,
            parameters=self.parameters,
            functions=functions or None,
        )

    def dialer(self, name: str) -> DialerProcess:
        """A dialer, one of :data:`DIALERS`."""
        version, options = DIALERS[name]
        front = self.front
        started = dialer_process(
            self.versions[version].tree, front.url, self.cloud.key, self.target, front.proxy,
            ca_file=front.ca_file, **options,
        )  # fmt: skip
        return self.dialers.enter_context(started)

    def amid_bulk(self, dialers: Sequence[DialerProcess], act: Callable[[], object]) -> None:
        """Do something while bytes are on the way over each dialer's connection ``open``; all arrive."""

        def begin(waiting: Sequence[DialerProcess]) -> None:
            if waiting:
                assert waiting[0].echo("open", SIZE, meanwhile=lambda: begin(waiting[1:])) == ""
                return
            try:
                act()
            finally:
                self.go_on.set()

        self.go_on.clear()
        begin(dialers)

    def command(self, version: str, *arguments: str) -> str:
        """What a version's ``emissary`` says, run by an operator; it must succeed."""
        tree = self.versions[version].tree
        environ = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
        environ |= self.cloud.operator
        environ |= {
            "EMISSARY_URL": self.front.url,
            "EMISSARY_AUTH_KEYS": format_keys([self.cloud.key]),
            "EMISSARY_CA_FILE": self.front.ca_file,
            "https_proxy": f"http://127.0.0.1:{self.front.proxy}",
            "PYTHONPATH": str(tree),
        }
        command = [sys.executable, "-P", "-m", "emissary_lib", *arguments]
        done = subprocess.run(
            command, env=environ, cwd=tree, capture_output=True, text=True, timeout=2 * HANG, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@contextlib.contextmanager
def deployed(versions: Versions, version: str, folder: pathlib.Path, **parameters: str) -> Iterator[Stack]:
    """A stack of one version; at its end no function was refused anything, in either version."""
    settings, first = {**PARAMETERS, **parameters}, versions[version]
    go_on = threading.Event()
    go_on.set()

    def serve(sock: socket.socket) -> None:
        while data := sock.recv(65_536):
            sock.sendall(data)
            assert go_on.wait(HANG)

    with (
        LocalCloud(first.template, artifacts=first.artifacts, parameters=settings) as cloud,
        Server(serve) as target,
        front_of(cloud, folder) as front,
    ):
        with contextlib.ExitStack() as dialers:
            yield Stack(versions, cloud, front, target, settings, dialers, go_on)
        assert cloud.denials() == []


@pytest.mark.parametrize(("handlers", "relay"), list(product(("old", "new"), repeat=2)))
def test_dialers_handlers_and_relays_of_both_versions_understand_each_other(
    versions: Versions, handlers: str, relay: str, tmp_path: pathlib.Path
) -> None:
    with deployed(versions, handlers, tmp_path) as stack:
        stack.update(relay, "RelayFunction")
        for name in DIALERS:
            dialer = stack.dialer(name)
            sessions = {dialer.dial("first"), dialer.dial("second")}
            assert [dialer.echo("first", SIZE, 1), dialer.echo("second", SIZE, 2)] == ["", ""]
            # One relay for both where dialer, handlers and relay know how; else each has its own.
            assert len(sessions) == (1 if (name, handlers, relay) == ("shared", "new", "new") else 2)
            dialer.end("first")
            dialer.end("second")


@pytest.mark.parametrize(("before", "after"), [("old", "new"), ("new", "old")], ids=["up", "back"])
def test_sessions_that_are_open_go_on_under_the_other_version(
    versions: Versions, before: str, after: str, tmp_path: pathlib.Path
) -> None:
    """Both sides also come back by the other version's handlers, when they have lost their WebSockets."""
    with deployed(versions, before, tmp_path) as stack:
        dialers = [stack.dialer(name) for name in DIALERS]
        sessions = [dialer.dial("open") for dialer in dialers]
        stack.amid_bulk(dialers, lambda: stack.update(after))
        for side in ("both", "dialer", "relay"):
            cuts = stack.cloud.fault_counts.get("cut_reset", 0)
            stack.amid_bulk(dialers, functools.partial(stack.cloud.cut, side))
            assert stack.cloud.fault_counts["cut_reset"] >= cuts + len({*sessions})
        later = [dialer.dial("later") for dialer in dialers]
        # What is shared takes more connections, whichever handlers there are.
        same = [one == other for one, other in zip(sessions, later, strict=True)]
        assert same == [False, False, before == "new"]
        for dialer in dialers:
            assert dialer.echo("later", SIZE) == ""
            for name in ("open", "later"):
                dialer.end(name)


def test_nothing_is_in_the_way_while_a_deployment_has_come_to_some_functions_only(
    versions: Versions, tmp_path: pathlib.Path
) -> None:
    with deployed(versions, "old", tmp_path) as stack:
        dialers = [stack.dialer(name) for name in ("old", "own")]
        for dialer in dialers:
            dialer.dial("open")
        mixed = [each for each in product(("old", "new"), repeat=len(FUNCTIONS)) if len(set(each)) > 1]
        for each in mixed:
            for version in ("old", "new"):
                stack.update(
                    version, *(name for name, its in zip(FUNCTIONS, each, strict=True) if its == version)
                )
            for dialer in dialers:
                dialer.dial("here")
                assert [dialer.echo("here", LITTLE), dialer.echo("open", LITTLE)] == ["", ""], each
                dialer.end("here")


@pytest.mark.parametrize(("before", "after"), [("old", "new"), ("new", "old")], ids=["up", "back"])
@pytest.mark.parametrize("name", ["old", "own"])
def test_places_that_one_version_gave_are_taken_for_the_other_too(
    versions: Versions, before: str, after: str, name: str, tmp_path: pathlib.Path
) -> None:
    with deployed(versions, before, tmp_path, MaxSessions="2") as stack:
        dialer = stack.dialer(name)
        dialer.dial("first")
        dialer.dial("second")
        stack.update(after)
        with pytest.raises(FailedError, match=FULL):
            dialer.dial("third")
        dialer.end("first")
        dialer.dial("third")
        with pytest.raises(FailedError, match=FULL):
            dialer.dial("fourth")
        assert [dialer.echo(each, LITTLE) for each in ("second", "third")] == ["", ""]


def test_a_session_of_short_messages_goes_on_under_handlers_that_know_none(
    versions: Versions, tmp_path: pathlib.Path
) -> None:
    with deployed(versions, "new", tmp_path) as stack:
        stack.cloud.set_faults(Faults(long_refused=1.0))
        dialers = [stack.dialer(name) for name in ("own", "shared")]
        for dialer in dialers:
            dialer.dial("open")
            assert dialer.echo("open", SIZE) == ""
        stack.update("old", *HANDLERS)
        for dialer in dialers:
            assert dialer.echo("open", SIZE) == ""
            dialer.dial("later")
            assert dialer.echo("later", SIZE) == ""


def test_a_relay_that_knows_no_short_messages_tells_what_did_not_arrive_until_the_upgrade(
    versions: Versions, tmp_path: pathlib.Path
) -> None:
    with deployed(versions, "old", tmp_path) as stack:
        stack.cloud.set_faults(Faults(long_refused=1.0))
        dialers = [stack.dialer(name) for name in ("own", "shared")]
        for dialer in dialers:
            dialer.dial("open")
            told = dialer.echo("open", SIZE)
            assert told.startswith("TunnelResetError")
            assert "MESSAGE_REFUSED" in told
        stack.update("new")
        for dialer in dialers:
            dialer.dial("later")
            assert dialer.echo("later", SIZE) == ""


@pytest.mark.parametrize(("before", "after"), [("old", "new"), ("new", "old")], ids=["up", "back"])
def test_commands_of_both_versions_read_what_either_has_written(
    versions: Versions, before: str, after: str, tmp_path: pathlib.Path
) -> None:
    with deployed(versions, before, tmp_path) as stack:
        dialers = [stack.dialer(name) for name in DIALERS]
        open_before = {dialer.dial("before") for dialer in dialers}
        stack.update(after)
        everything = open_before | {dialer.dial("after") for dialer in dialers}
        host, port = stack.target
        for version in ("old", "new"):
            listed: list[dict[str, Any]] = json.loads(
                stack.command(
                    version, "sessions", "list", "--table", stack.cloud.tables["SessionTable"], "--json"
                )
            )
            assert {each["session"] for each in listed if each["state"] == "open"} == everything
            stack.command(version, "doctor", f"{host}:{port}")
