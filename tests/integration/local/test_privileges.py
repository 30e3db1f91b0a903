"""Least privilege, proven: what template.yaml's policies allow is needed, and nothing else is.

One cloud serves all tests; statements are withdrawn and restored while it runs.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import botocore.session
import pytest
import websocket

from emissary_lib import AuthenticationError, Dialer
from emissary_lib.operate.keys import KeySecret
from emissary_lib.protocol.auth.keys import Key
from emissary_local import LocalCloud
from emissary_local.aws.iam.privileges import Privileges
from emissary_local.aws.iam.report import Permission
from emissary_local.template.template import read_template
from tests.helpers.local_cloud import LINUX_ONLY, PARAMETERS, TEMPLATE, audit_record, eventually
from tests.helpers.patience import HANG
from tests.infra.documents import fenced
from tests.integration.local.privileges_run import TELLS_PEERS, Patience, exchange, run

pytestmark = [LINUX_ONLY, pytest.mark.slow]

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

#: What is done as well as it can be, so that no client feels its refusal: that alone fails the run.
UNFELT: Final = {
    ("DefaultFunction", "CloseReplacedConnections"),
    ("DisconnectFunction", "GiveSlotsBack"),
    TELLS_PEERS,
}

#: No client feels this one either, but a killed session has no audit record without it.
RECORDS: Final = ("DisconnectFunction", "ReadAndAdvanceSessions")

#: What a function remembers from before a statement was withdrawn: it has to begin anew.
REMEMBERED: Final = "ReadKeys"

#: Once a call was refused, nobody waits longer than this for a dial, an answer or a record, in seconds.
IN_VAIN: Final = 2.0


#: The other statements of template.yaml: function and Sid.
NEEDED: Final = [
    ("ConnectFunction", "ReadKeys"),
    ("ConnectFunction", "CreateAndClaimSessions"),
    ("ConnectFunction", "ReadAndTakeSlots"),
    ("ConnectFunction", "LaunchRelays"),
    ("DefaultFunction", "ReadKeys"),
    ("DefaultFunction", "ReadAndAdvanceSessions"),
    ("DefaultFunction", "ReadAndTakeSlots"),
    ("DefaultFunction", "LaunchRelays"),
    ("DefaultFunction", "PostToPeers"),
    ("DefaultFunction", "CloseReplacedConnections"),
    ("DisconnectFunction", "ReadAndAdvanceSessions"),
    ("DisconnectFunction", "GiveSlotsBack"),
    ("DisconnectFunction", "PostToPeers"),
    ("RelayFunction", "PostToDialers"),
]


def permissions(**parameters: str) -> list[Permission]:
    """What template.yaml grants, with these parameters beside those of the tests."""
    read = read_template(TEMPLATE, {**PARAMETERS, **parameters})
    return Privileges(read.functions.values()).permissions()


@pytest.fixture(scope="module")
def cloud() -> Iterator[LocalCloud]:
    # A limit, which is what takes slots, and reads them.
    with LocalCloud(TEMPLATE, parameters={**PARAMETERS, "MaxSessions": "100"}) as running:
        yield running


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
    session = run(cloud, target)
    assert audit_record(cloud, session)["code"] == "OK"

    def unused() -> dict[tuple[str, str], list[str]]:
        return {(each.function, each.name): each.unused for each in cloud.permissions() if each.unused}

    assert set(unused()) == FOR_AWS_ITSELF
    assert cloud.denials() == []


@pytest.mark.parametrize(("function", "name"), NEEDED)
def test_without_any_one_statement_a_run_fails_and_names_it(
    cloud: LocalCloud, target: tuple[str, int], function: str, name: str
) -> None:
    seen = len(cloud.logs(function))
    unfelt = (function, name) in UNFELT
    in_vain = HANG if unfelt or (function, name) == RECORDS else IN_VAIN
    with without(cloud, function, name):
        with pytest.raises(PermissionError) as caught:
            run(cloud, target, in_vain, HANG if unfelt else IN_VAIN)
        # The function was told so, in the form its SDK knows, and logged it.
        told = ("AccessDenied", "ForbiddenException", "KeysUnavailable")
        eventually(
            lambda: any(word in cloud.logs(function)[seen:] for word in told) or None,
            "the refusal in the log",
        )
    who, _, why = str(caught.value).partition(" may not ")
    assert who == f"AccessDenied: {function}"
    assert why.endswith(
        f": no statement of its policies in template.yaml allows it; {name} would, but is withdrawn"
    )
    felt = caught.value.__cause__
    assert (felt is None) == unfelt
    if (function, name) == RECORDS:
        assert str(felt) == "the killed session has no audit record", "and nothing else is wrong"


def test_every_statement_is_needed_by_our_code_or_listed_as_what_aws_uses() -> None:
    granted = permissions()
    assert sorted((each.function, each.name) for each in granted) == sorted([*NEEDED, *FOR_AWS_ITSELF])
    assert {*NEEDED, *FOR_AWS_ITSELF} >= UNFELT | {RECORDS}
    services = {"logs", "ec2"}
    of_aws = {
        (each.function, each.name)
        for each in granted
        if {action.partition(":")[0] for action in each.actions} <= services
    }
    assert of_aws == FOR_AWS_ITSELF


def test_traces_are_the_only_other_thing_that_aws_does_with_the_roles() -> None:
    traced = permissions(Tracing="true")
    more = {(each.function, each.name) for each in traced} - {*NEEDED, *FOR_AWS_ITSELF}
    assert more == {(function, "SendTraces") for function in {each.function for each in traced}}


def test_the_relay_may_not_read_the_keys_or_the_table(cloud: LocalCloud) -> None:
    read = Privileges(read_template(TEMPLATE, PARAMETERS).functions.values())
    (secret,) = cloud.secrets.values()
    assert read.refusal("ConnectFunction", "secretsmanager:GetSecretValue", secret) is None
    for function in ("RelayFunction", "DisconnectFunction"):
        refusal = read.refusal(function, "secretsmanager:GetSecretValue", secret)
        assert refusal is not None
        assert refusal.startswith(f"{function} may not secretsmanager:GetSecretValue on")
    table = f"arn:aws:dynamodb:us-east-1:123456789012:table/{cloud.tables['SessionTable']}"
    assert read.refusal("RelayFunction", "dynamodb:GetItem", table) is not None
    assert read.refusal("RelayFunction", "ec2:DescribeSubnets", "*") is not None


def bounded(*without: str) -> LocalCloud:
    """A stack whose roles have the boundary of the manual, but for some actions."""
    (boundary,) = map(json.loads, fenced("docs/operations.md", "json"))
    for statement in boundary["Statement"]:
        statement["Action"] = [action for action in statement["Action"] if action not in without]
    arn = "arn:aws:iam::123456789012:policy/Boundary"
    parameters = {**PARAMETERS, "MaxSessions": "100", "PermissionsBoundaryArn": arn}
    return LocalCloud(TEMPLATE, parameters=parameters, policies={arn: boundary})


def test_the_boundary_of_the_manual_is_enough_for_a_run(target: tuple[str, int]) -> None:
    with bounded() as cloud:
        run(cloud, target)
        assert cloud.denials() == []


def test_a_boundary_that_lets_no_relay_start_fails_the_run_by_its_name(target: tuple[str, int]) -> None:
    with bounded("lambda:InvokeFunction") as cloud, pytest.raises(PermissionError) as caught:
        run(cloud, target, IN_VAIN, IN_VAIN)
    who, _, why = str(caught.value).partition(" may not ")
    assert who == "AccessDenied: ConnectFunction"
    assert why.startswith("lambda:InvokeFunction on ")
    assert why.endswith("its policies do, but its permissions boundary does not allow it")


def through(cloud: LocalCloud, key: Key, target: tuple[str, int]) -> bool:
    """Whether a dial with this key carries bytes; idle environments begin anew, and so read the keys."""
    cloud.retire()
    with Dialer(cloud.url, key) as dialer:
        try:
            with dialer.dial(target, HANG) as sock:
                sock.settimeout(HANG)
                exchange(sock, b"hello", Patience(cloud, HANG))
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
    client = websocket.create_connection(stack.url, timeout=HANG)

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
