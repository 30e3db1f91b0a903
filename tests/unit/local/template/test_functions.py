"""Functions: where their code is, and what their roles allow."""

from __future__ import annotations

from pathlib import Path

import pytest

from emissary_local.errors import TemplateError
from emissary_local.template.template import read_template
from tests.unit.local.template.stacks import API, FUNCTION, STACK, read

ROLE = """
  Mine:
    Type: AWS::IAM::Role
    Properties:
      ManagedPolicyArns: [!Ref Elsewhere]
      Policies:
        - PolicyName: Code
          PolicyDocument: {Statement: [{Sid: One, Effect: Allow, Action: x, Resource: !Sub "${AWS::Region}"}]}
  Elsewhere:
    Type: AWS::IAM::ManagedPolicy
    Properties: {PolicyDocument: {Version: 2012-10-17, Statement: []}}
"""
OWN = API + FUNCTION.replace("R.Arn", "Mine.Arn") + ROLE


def attached(kind: str, properties: str) -> str:
    return (
        f"  More:\n    Type: AWS::IAM::{kind}\n    Properties:\n      PolicyName: x\n".replace(
            "PolicyName", "ManagedPolicyName" if kind == "ManagedPolicy" else "PolicyName"
        )
        + "      PolicyDocument: {Statement: [{Sid: More}]}\n"
        + f"      {properties}\n"
    )


def test_policies_of_a_functions_role_are_its_policies(tmp_path: Path) -> None:
    (code,) = read(tmp_path, OWN).functions["F"].policies
    assert code["Statement"] == [{"Sid": "One", "Effect": "Allow", "Action": "x", "Resource": "us-east-1"}]


def test_managed_policies_of_a_functions_role_are_kept_apart(tmp_path: Path) -> None:
    managed = read(tmp_path, OWN).functions["F"].managed_policies
    assert managed == {"Elsewhere": {"Version": "2012-10-17", "Statement": []}}, "a date must stay text"


def test_managed_policies_of_aws_are_left_as_arns(tmp_path: Path) -> None:
    arn = "arn:aws:iam::aws:policy/ReadOnlyAccess"
    spec = read(tmp_path, OWN.replace("!Ref Elsewhere", arn)).functions["F"]
    assert (spec.policies[1:], spec.managed_policies) == ((arn,), {})


@pytest.mark.parametrize(
    ("kind", "roles"), [("Policy", "Roles: [!Ref Mine]"), ("RolePolicy", "RoleName: !Ref Mine")]
)
def test_policies_that_attach_themselves_are_found(tmp_path: Path, kind: str, roles: str) -> None:
    _, more = read(tmp_path, OWN + attached(kind, roles)).functions["F"].policies
    assert more == {"Statement": [{"Sid": "More"}]}


def test_managed_policies_that_attach_themselves_are_found(tmp_path: Path) -> None:
    spec = read(tmp_path, OWN + attached("ManagedPolicy", "Roles: [!Ref Mine]")).functions["F"]
    assert spec.managed_policies["More"] == {"Statement": [{"Sid": "More"}]}
    assert "Elsewhere" in spec.managed_policies


def test_a_policy_of_another_role_is_not_the_functions(tmp_path: Path) -> None:
    spec = read(tmp_path, OWN + attached("Policy", "Roles: [!Ref R]")).functions["F"]
    assert len(spec.policies) == 1


def test_a_permissions_boundary_may_be_a_policy_of_the_template(tmp_path: Path) -> None:
    bounded = OWN.replace("Policies:", "PermissionsBoundary: !Ref Elsewhere\n      Policies:", 1)
    assert read(tmp_path, bounded).functions["F"].boundary == {"Version": "2012-10-17", "Statement": []}
    assert read(tmp_path, OWN).functions["F"].boundary is None


def test_policies_from_elsewhere_are_known_once_their_documents_are_given(tmp_path: Path) -> None:
    file, (boundary, more) = tmp_path / "template.yaml", (f"arn:aws:iam::1:policy/{name}" for name in "bm")
    text = OWN.replace(
        "ManagedPolicyArns: [", f"PermissionsBoundary: {boundary}\n      ManagedPolicyArns: [{more}, "
    )
    file.write_text(text)
    documents = {boundary: {"Statement": [{"Sid": "Bound"}]}, more: {"Statement": [{"Sid": "More"}]}}
    spec = read_template(file, policies=documents).functions["F"]
    assert spec.boundary == documents[boundary]
    assert spec.managed_policies[more] == documents[more]
    assert len(spec.policies) == 1


def test_code_is_in_a_folder_of_the_functions_own(tmp_path: Path) -> None:
    (tmp_path / "onconnect").mkdir()
    spec = read(tmp_path, STACK.replace("Code: .", "Code: onconnect/")).functions["F"]
    assert (spec.task_root, spec.inline_code) == (tmp_path / "onconnect", None)


def test_code_may_be_in_the_template(tmp_path: Path) -> None:
    text = STACK.replace("Code: .", "Code: {ZipFile: 'x = 1'}").replace("app.handler", "index.handler")
    assert read(tmp_path, text).functions["F"].inline_code == "x = 1"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Code: .", "Code: absent", "F.Properties.Code: 'absent' is no directory beside the template"),
        ("Code: .", "Code: {ZipFile: x}", "Handler of ZipFile must be index.function, not 'app.handler'"),
        ("Code: .", "Code: {S3Bucket: b, S3Key: k}", "F.Properties.Code: only a folder .* not S3Bucket, S3K"),
        ("Code: .", "Code: {ImageUri: i}", "not ImageUri"),
        ("      Code: .\n", "", "not None"),
        ("app.handler", "app", "Handler must be module.function, not 'app'"),
        ("python3.13", "nodejs20.x", "F.Properties.Runtime: the local cloud runs Python only, not nodejs20."),
        ("Runtime: python3.13", "PackageType: Image", "knows no 'Image' here, only: Zip"),
        ("Code: .", "Code: .\n      SnapStart: {}", "F.Properties.SnapStart: .* does not know this property"),
        ("!GetAtt Mine.Arn", "arn:aws:iam::1:role/r", "'arn:aws:iam::1:role/r' is no role of this template"),
        ("Policies:", "PermissionsBoundary: x\n      Policies:", "PermissionsBoundary: 'x' is no policy of"),
        ("PolicyName: Code\n          PolicyDocument", "x", "a policy needs a PolicyDocument"),
    ],
)  # fmt: skip
def test_what_cannot_be_run_as_on_aws_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in OWN
    with pytest.raises(TemplateError, match=message):
        read(tmp_path, OWN.replace(old, new))


def test_a_destination_is_refused(tmp_path: Path) -> None:
    text = STACK + (
        "  Config:\n    Type: AWS::Lambda::EventInvokeConfig\n    Properties:\n      FunctionName: !Ref F\n"
        "      Qualifier: $LATEST\n      DestinationConfig: {OnFailure: {Destination: x}}\n"
    )
    with pytest.raises(TemplateError, match=r"Config.Properties.DestinationConfig: .* no destinations"):
        read(tmp_path, text)


@pytest.mark.parametrize(
    ("vpc", "nat"),
    [
        ("{SubnetIds: [subnet-1], SecurityGroupIds: [sg-1]}", True),
        ("{SubnetIds: [subnet-1], Ipv6AllowedForDualStack: false}", True),
        ("{SubnetIds: [subnet-1], Ipv6AllowedForDualStack: 'true'}", False),
        ("{SubnetIds: [!ImportValue net]}", True),
        ("!Ref AWS::NoValue", False),
    ],
)
def test_a_function_in_a_vpc_has_a_nat_gateway_unless_it_has_ipv6(
    tmp_path: Path, vpc: str, nat: bool
) -> None:
    assert read(tmp_path, STACK + f"      VpcConfig: {vpc}\n").functions["F"].nat is nat
    assert not read(tmp_path, STACK).functions["F"].nat
