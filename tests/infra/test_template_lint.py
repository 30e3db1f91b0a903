"""The template with many sets of parameters, through SAM's translator and CloudFormation's linter."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from emissary_local.template.names import parameter_values
from emissary_local.template.rules import check_rules
from tests.helpers.patience import HANG
from tests.helpers.sam_template import REQUIRED, resolver, source

#: Regions of different partitions, ages and sizes, each with a schema of its own.
REGIONS: Final = ("us-east-1", "eu-central-1", "af-south-1", "mx-central-1", "cn-north-1", "us-gov-west-1")

ACCOUNT: Final = "1" * 12
NETWORK: Final = {"VpcId": "vpc-0123456789abcdef0", "SubnetIds": "subnet-0123456789abcdef0,subnet-01234567"}
DOMAIN: Final = {
    "DomainName": "emissary.example.com",
    "CertificateArn": f"arn:aws:acm:eu-west-1:{ACCOUNT}:certificate/0123-abcd",
}
COMPANY: Final = {
    "PermissionsBoundaryArn": f"arn:aws:iam::{ACCOUNT}:policy/team/Boundary",
    "RolePath": "/platform/network/",
    "LogKmsKeyArn": f"arn:aws:kms:eu-west-1:{ACCOUNT}:key/01234567-89ab-cdef-0123-456789abcdef",
}

SETS: Final[dict[str, dict[str, str]]] = {
    "defaults": {},
    "ipv6": {"RelayIpv6": "true"},
    "no dual-stack": {"IpAddressType": "ipv4"},
    "own group and secret": {
        "SecurityGroupId": "sg-0123456789abcdef0",
        "KeySecretArn": f"arn:aws:secretsmanager:eu-west-1:{ACCOUNT}:secret:team/keys-AbCdEf",
    },
    "five ports and dns servers": {"TargetPorts": "1,2,3,4,5", "DnsServers": "10.0.0.2 10.0.1.2"},
    "five ports over ipv6": {"TargetPorts": "1,2,3,4,5", "RelayIpv6": "true"},
    "as much as there is": {
        "RelayMemory": "10240", "RelayTimeout": "1800", "RelayConcurrency": "1000", "DefaultMemory": "10240",
        "MaxSessions": "1000", "MaxSessionsPerKey": "1000", "RelayGraceSeconds": "300",
    },
    "as little as there is": {
        "RelayMemory": "128", "RelayTimeout": "60", "DefaultMemory": "512", "DefaultThrottle": "10",
        "MaxSessions": "0", "RelayGraceSeconds": "5", "LogRetentionDays": "1", "Architecture": "x86_64",
    },
    "watched": {
        "AccessLogs": "true", "Tracing": "true", "LogLevel": "DEBUG",
        "AlarmTopicArn": f"arn:aws:sns:eu-west-1:{ACCOUNT}:alarms",
    },
    "domain": DOMAIN,
    "domain with records": {**DOMAIN, "HostedZoneId": "Z0123456789ABCDEFGHIJ"},
    "domain over ipv4, the only way in": {
        **DOMAIN, "HostedZoneId": "Z0123456789ABCDEFGHIJ", "IpAddressType": "ipv4",
        "DisableExecuteApiEndpoint": "true",
    },
    "boundary": {"PermissionsBoundaryArn": COMPANY["PermissionsBoundaryArn"]},
    "path": {"RolePath": COMPANY["RolePath"]},
    "logs with a key": {"LogKmsKeyArn": COMPANY["LogKmsKeyArn"], "AccessLogs": "true"},
    "a company's account": {**COMPANY, **DOMAIN, "Tracing": "true", "AccessLogs": "true"},
}  # fmt: skip

#: Translates as CloudFormation's transform does it: with the values that a deployment gives.
_TRANSLATE: Final = """
import json, sys
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator
document, sets = json.load(sys.stdin)
answers = [Translator({}, Parser()).translate(json.loads(document), each) for each in sets]
json.dump(answers, sys.stdout)
"""

_LINT: Final = "from cfnlint.runner import main; main()"


def deployed(given: dict[str, str]) -> dict[str, Any]:
    """Every parameter's value, defaults included."""
    return parameter_values(source()["Parameters"], {**NETWORK, **REQUIRED, **given})


def as_default(parameter: str, value: Any) -> str | int:
    if isinstance(value, list):
        return ",".join(value)
    return int(value) if source()["Parameters"][parameter]["Type"] == "Number" else str(value)


def run(program: str, *words: str, text: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, *words],
        input=text, capture_output=True, text=True, timeout=10 * HANG,
        env={"AWS_DEFAULT_REGION": "us-east-1", "PYTHONPATH": ":".join(filter(None, sys.path))},
    )  # fmt: skip


@pytest.mark.parametrize("name", SETS)
def test_every_set_of_parameters_is_one_that_the_template_takes(name: str) -> None:
    check_rules(source()["Rules"], resolver({**NETWORK, **REQUIRED, **SETS[name]}))


@pytest.mark.slow
def test_every_set_of_parameters_is_valid_cloudformation_in_every_region(tmp_path: Path) -> None:
    document = copy.deepcopy(source())
    document["Globals"]["Function"]["CodeUri"] = {"Bucket": "bucket", "Key": "key"}
    values = [deployed(given) for given in SETS.values()]
    done = run(_TRANSLATE, text=json.dumps([json.dumps(document), values]))
    assert done.returncode == 0, done.stderr
    for name, translated, chosen in zip(SETS, json.loads(done.stdout), values, strict=True):
        for parameter, value in chosen.items():
            # As its default the linter takes it for the value, wherever a reference is left.
            translated["Parameters"][parameter]["Default"] = as_default(parameter, value)
        (tmp_path / f"{name}.json").write_text(json.dumps(translated, indent=1), encoding="utf-8")
    files = sorted(map(str, tmp_path.iterdir()))
    lint = run(_LINT, "--format", "parseable", "--regions", *REGIONS, "--", *files)
    assert (lint.returncode, lint.stdout, lint.stderr) == (0, "", "")
