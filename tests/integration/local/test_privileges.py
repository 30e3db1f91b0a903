"""Least privilege, proven: what template.yaml's policies allow is needed, and nothing else is.

One cloud serves all tests; statements are withdrawn and restored while it runs.
"""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import botocore.session
import pytest
import websocket

from emissary_lib import AuthenticationError, Dialer, EmissaryError, LocalCloud, cli
from emissary_lib.exit_status import Exit
from emissary_lib.local import Faults
from emissary_lib.local.iam.privileges import Privileges
from emissary_lib.local.iam.report import Denial
from emissary_lib.local.template import read_template
from emissary_lib.operate.keys import KeySecret
from emissary_lib.protocol.keepalive import KeepaliveTimes
from emissary_lib.protocol.keys import Key
from tests.helpers.cloudside import (
    DIAL,
    LINUX_ONLY,
    PARAMETERS,
    SOON,
    TEMPLATE,
    audit_record,
    audit_records,
    eventually,
)
from tests.helpers.servers import Server, echo

pytestmark = LINUX_ONLY

STACK = Path(__file__).parent / "stack" / "template.yaml"

#: What only AWS itself uses, with the functions' roles: it writes their logs and attaches the relay to the
#: VPC. No code of ours calls it, so that no run can show whether it is needed. (Traces are off here.)
FOR_AWS_ITSELF: Final = {
    ("ConnectFunction", "WriteLogs"),
    ("DefaultFunction", "WriteLogs"),
    ("DisconnectFunction", "WriteLogs"),
    ("RelayFunction", "WriteLogs"),
    ("RelayFunction", "AttachToVpc"),
    ("RelayFunction", "NotByTheCode"),
}

#: What is done as well as it can be and whose failure no client feels at once: it is in the function's log.
TELLS_PEERS: Final = ("DisconnectFunction", "PostToPeers")
BEST_EFFORT: Final = {("DefaultFunction", "CloseReplacedConnections"), TELLS_PEERS}

#: No client feels this one either, but a killed session has no audit record without it.
RECORDS: Final = ("DisconnectFunction", "ReadAndAdvanceSessions")

#: What a function remembers from before a statement was withdrawn: it has to begin anew.
REMEMBERED: Final = "ReadKeys"

#: A dial that cannot succeed takes no longer than this, and nobody waits longer for a record, in seconds.
IN_VAIN: Final = 2.0

KEEPALIVE: Final = KeepaliveTimes(interval=0.5, when_unacked=0.3, deadline=0.5, repeat=0.2)


def statements() -> list[tuple[str, str]]:
    """Every statement of template.yaml: function and Sid."""
    read = read_template(TEMPLATE, PARAMETERS)
    return [(each.function, each.name) for each in Privileges(read.functions.values()).permissions()]


NEEDED: Final = [each for each in statements() if each not in FOR_AWS_ITSELF]


@pytest.fixture(scope="module")
def cloud() -> Iterator[LocalCloud]:
    # A limit, which is what takes slots, and reads them.
    with LocalCloud(TEMPLATE, parameters={**PARAMETERS, "MaxSessions": "100"}) as running:
        yield running


@pytest.fixture(scope="module")
def target() -> Iterator[tuple[str, int]]:
    with Server(echo) as address:
        yield address


def exchange(sock: socket.socket, data: bytes) -> None:
    sock.sendall(data)
    received = b""
    while len(received) < len(data):
        more = sock.recv(65_536)
        assert more, "the tunnel ended"
        received += more
    assert received == data


def scenario(cloud: LocalCloud, target: tuple[str, int], timeout: float, patience: float) -> str:
    """All that a stack is used for: sessions, lost WebSockets, a question for health, a kill.

    Args:
        cloud: The stack.
        target: Sends back what comes.
        timeout: For each dial and each answer, in seconds.
        patience: For the audit record of the killed session, in seconds.

    Returns:
        The id of the session that ended well.
    """
    with Dialer(cloud.url, cloud.key, keepalive=KEEPALIVE) as dialer:
        ended = cut_and_closed(cloud, dialer, target, timeout)
        killed(cloud, dialer, target, timeout, patience)
        return ended


def cut_and_closed(cloud: LocalCloud, dialer: Dialer, target: tuple[str, int], timeout: float) -> str:
    """Dial, echo, lose WebSockets with and without notice, come back, close; the session's id."""
    with dialer.dial(target, timeout) as sock:
        sock.settimeout(timeout)
        info = sock.session
        assert info is not None
        exchange(sock, b"hello")
        assert dialer.health(timeout).key_ids == (cloud.key.key_id,)
        # The gateway still holds this one when its owner comes back, and $default closes it.
        assert cloud.cut("dialer", "silent") == 1
        exchange(sock, b"after a silent death")
        with nobody_let_in(cloud):  # else the dialer may be back before $disconnect has looked
            before = told_by_disconnect(cloud)
            assert cloud.cut("dialer", "reset", -1) == 1
            eventually(lambda: told_by_disconnect(cloud) > before or None, "$disconnect")
        exchange(sock, b"after a cut")
        assert cloud.cut("relay", "reset", -1) == 1
        exchange(sock, b"after another cut")
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(1) == b""
        return info.id


def killed(
    cloud: LocalCloud, dialer: Dialer, target: tuple[str, int], timeout: float, patience: float
) -> None:
    """Dial, be killed by an operator, and be recorded, once."""
    (table,) = cloud.tables.values()
    with dialer.dial(target, timeout) as sock, pytest.MonkeyPatch.context() as environment:
        sock.settimeout(timeout)
        exchange(sock, b"hello")
        info = sock.session
        assert info is not None
        for name, value in cloud.operator.items():
            environment.setenv(name, value)
        command = ["sessions", "kill", info.id, "--table", table, "--url", cloud.url]
        assert cli.main(command) == Exit.OK
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
    deadline = time.monotonic() + patience
    while not (records := audit_records(cloud, info.id)):
        if time.monotonic() > deadline:
            raise TimeoutError("the killed session has no audit record")
        time.sleep(0.01)
    assert [each["code"] for each in records] == ["KILLED"]


@contextlib.contextmanager
def nobody_let_in(cloud: LocalCloud) -> Iterator[None]:
    cloud.set_faults(Faults(connect_429=1.0))
    try:
        yield
    finally:
        cloud.set_faults(Faults())


def told_by_disconnect(cloud: LocalCloud) -> int:
    """How often $disconnect has posted to a peer, or was refused something."""
    posts = [each for each in cloud.permissions() if (each.function, each.name) == TELLS_PEERS]
    refused = [each for each in cloud.denials() if each.function == TELLS_PEERS[0]]
    return sum(posts[0].actions.values()) + len(refused)


def denial(cloud: LocalCloud, function: str, before: int) -> Denial:
    """Wait for a refusal of a call of ``function``."""

    def ask() -> Denial | None:
        new = cloud.denials()[before:]
        return next((each for each in new if each.function == function), None)

    return eventually(ask, f"a refusal of {function}")


@contextlib.contextmanager
def without(cloud: LocalCloud, function: str, name: str) -> Iterator[None]:
    cloud.withdraw(function, name)
    try:
        if name == REMEMBERED:
            cloud.retire(function)
        yield
    finally:
        cloud.restore()
        if name == REMEMBERED:
            cloud.retire(function)  # those that remember that there are no keys


def test_a_run_needs_every_permission_and_nothing_that_is_not_granted(
    cloud: LocalCloud, target: tuple[str, int]
) -> None:
    try:
        session = scenario(cloud, target, DIAL, SOON)
    except Exception as exc:
        for each in cloud.denials():
            exc.add_note(each.message)
        raise
    assert audit_record(cloud, session)["code"] == "OK"

    def unused() -> dict[tuple[str, str], list[str]]:
        return {(each.function, each.name): each.unused for each in cloud.permissions() if each.unused}

    # $disconnect of the last connection may still be running.
    eventually(lambda: set(unused()) == FOR_AWS_ITSELF or None, "the use of every permission")
    assert cloud.denials() == []


@pytest.mark.parametrize(("function", "name"), NEEDED)
def test_without_any_one_statement_a_run_fails_and_names_it(
    cloud: LocalCloud, target: tuple[str, int], function: str, name: str
) -> None:
    before = len(cloud.denials())
    seen = len(cloud.logs(function))
    failed = None
    with without(cloud, function, name):
        essential = (function, name) not in BEST_EFFORT
        timeout = DIAL if (function, name) in BEST_EFFORT | {RECORDS} else IN_VAIN
        try:
            scenario(cloud, target, timeout, IN_VAIN if essential else SOON)
        except (EmissaryError, OSError) as exc:
            failed = exc
        refused = denial(cloud, function, before)
        # The function was told so, in the form its SDK knows, and logged it.
        told = ("AccessDenied", "ForbiddenException", "KeysUnavailable")
        eventually(
            lambda: any(word in cloud.logs(function)[seen:] for word in told) or None,
            "the refusal in the log",
        )
    assert (failed is not None) == essential
    if (function, name) == RECORDS:
        assert str(failed) == "the killed session has no audit record", "and nothing else is wrong"
    assert refused.message == (
        f"{function} may not {refused.action} on {refused.resource}: "
        f"no statement of its policies in template.yaml allows it; {name} would, but is withdrawn"
    )


def test_every_statement_is_needed_by_our_code_or_listed_as_what_aws_uses() -> None:
    assert len(set(statements())) == len(statements())
    assert set(statements()) >= FOR_AWS_ITSELF | BEST_EFFORT | {RECORDS}
    services = {"logs", "ec2"}
    read = Privileges(read_template(TEMPLATE, PARAMETERS).functions.values()).permissions()
    of_aws = {
        (each.function, each.name)
        for each in read
        if {action.partition(":")[0] for action in each.actions} <= services
    }
    assert of_aws == FOR_AWS_ITSELF


def test_traces_are_the_only_other_thing_that_aws_does_with_the_roles() -> None:
    read = read_template(TEMPLATE, {**PARAMETERS, "Tracing": "true"})
    more = {(p.function, p.name) for p in Privileges(read.functions.values()).permissions()} - set(
        statements()
    )
    assert more == {(function, "SendTraces") for function in read.functions}


def test_the_relay_may_not_read_the_keys_or_the_table(cloud: LocalCloud) -> None:
    read = Privileges(read_template(TEMPLATE, PARAMETERS).functions.values())
    (secret,) = cloud.secrets.values()
    assert read.refusal("ConnectFunction", "secretsmanager:GetSecretValue", secret) is None
    for function in ("RelayFunction", "DisconnectFunction"):
        refusal = read.refusal(function, "secretsmanager:GetSecretValue", secret)
        assert refusal is not None and refusal.startswith(
            f"{function} may not secretsmanager:GetSecretValue on"
        )
    table = f"arn:aws:dynamodb:us-east-1:123456789012:table/{cloud.tables['SessionTable']}"
    assert read.refusal("RelayFunction", "dynamodb:GetItem", table) is not None
    assert read.refusal("RelayFunction", "ec2:DescribeSubnets", "*") is not None


def through(cloud: LocalCloud, key: Key, target: tuple[str, int]) -> bool:
    """Whether a dial with this key carries bytes; idle environments begin anew, and so read the keys."""
    cloud.retire()
    with Dialer(cloud.url, key) as dialer:
        try:
            with dialer.dial(target, DIAL) as sock:
                sock.settimeout(SOON)
                exchange(sock, b"hello")
        except AuthenticationError:
            return False
    return True


def expect(cloud: LocalCloud, target: tuple[str, int], *, in_: list[Key], out: list[Key]) -> None:
    """Wait until dials with these keys work, and with those do not.

    An environment that was busy when the others were retired knows the former keys for some seconds more.
    """
    for key in in_ + out:
        wanted = key in in_

        def ask(key: Key = key, wanted: bool = wanted) -> bool | None:
            return True if through(cloud, key, target) is wanted else None

        eventually(ask, f"key {key.key_id} is {'in' if wanted else 'out'}")


def test_an_operator_rotates_the_keys(
    cloud: LocalCloud, target: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in cloud.operator.items():
        monkeypatch.setenv(name, value)
    client: Any = botocore.session.Session().create_client("secretsmanager")
    try:
        secret = KeySecret(client, next(iter(cloud.secrets.values())))
        new = secret.new()
        expect(cloud, target, in_=[cloud.key, new], out=[])
        secret.retire(cloud.key.key_id)
        expect(cloud, target, in_=[new], out=[cloud.key])
        cloud.rotate_keys([cloud.key])
        assert [each.key.key_id for each in secret.list()] == [cloud.key.key_id]
    finally:
        cloud.rotate_keys([cloud.key])
        expect(cloud, target, in_=[cloud.key], out=[])
        client.close()


@pytest.fixture(scope="module")
def stack() -> Iterator[LocalCloud]:
    with LocalCloud(STACK) as running:
        yield running


@pytest.fixture
def ask(stack: LocalCloud) -> Iterator[Callable[[str], Any]]:
    """Has a function of the small stack do something; what it answers."""
    client = websocket.create_connection(stack.url, timeout=SOON)

    def question(text: str) -> Any:
        client.send(text)
        return json.loads(client.recv())

    yield question
    client.close()


def test_a_generated_secret_is_read_as_the_template_makes_it(
    stack: LocalCloud, ask: Callable[[str], Any]
) -> None:
    value = json.loads(ask("secret"))
    assert (value["kid"], len(value["data"])) == (stack.key.key_id, 64)
    stack.put_secret("another")
    assert ask("secret") == "another"


def test_refusals_have_each_services_own_form(stack: LocalCloud, ask: Callable[[str], Any]) -> None:
    assert ask("secret no") == "AccessDeniedException"
    assert ask("delete") == ["ForbiddenException", 403]
    stack.withdraw("Default", "Table")
    stack.withdraw("Default", "Invoke")
    try:
        assert ask("claim x") == "AccessDeniedException"
        assert ask("invoke {}") == {"code": "AccessDeniedException"}
    finally:
        stack.restore()
    assert ask("claim x") == "won"
    actions = [each.action for each in stack.denials()]
    assert actions == [
        "secretsmanager:PutSecretValue",
        "execute-api:ManageConnections",
        "dynamodb:PutItem",
        "lambda:InvokeFunction",
    ]
