"""What to do about what can go wrong behind the bridge."""

from __future__ import annotations

from typing import Final

from emissary_lib.doctor.report import Finding, failed
from emissary_lib.exceptions import TargetRefusedError, TargetTimedOutError, TargetUnreachableError
from emissary_lib.exit_status import Exit

NO_RELAY_REMEDY: Final = (
    "see RelayFunction's log: no line means that it did not start (concurrency, or inactive after two idle "
    "weeks: try again in a minute), 'could not dial back' that the VPC lets nothing out to the gateway (NAT "
    "or egress-only gateway, port 443, private DNS of an execute-api endpoint)"
)

#: For a reason of no kind below: exit status, fact, remedy.
OTHER_PROBLEM: Final = (
    Exit.NOT_REACHED,
    "was not reached: connecting failed",
    "see RelayFunction's log for the cause",
)

#: By the error of the dial: exit status, fact, remedy.
TARGET_PROBLEMS: Final[dict[type[BaseException], tuple[Exit, str, str]]] = {
    TargetRefusedError: (
        Exit.REFUSED,
        "refuses connections",
        "its host is reached: see that the service runs, and listens there, not on loopback alone",
    ),
    TargetUnreachableError: (
        Exit.UNREACHABLE,
        "has no route from the relay's subnets",
        "check their route tables, peering and network ACLs",
    ),
    TargetTimedOutError: (
        Exit.TIMED_OUT,
        "does not answer the relay",
        "check the target's security group (it must admit the relay's, output RelaySecurityGroupId), network "
        "ACLs, and the stack's parameter TargetPorts",
    ),
}


def broke(cause: str) -> Finding:
    """An open tunnel that is not any more."""
    return failed(
        Exit.CUT_OFF,
        f"the tunnel broke: {cause}",
        "try again; if it stays so, see the session in the logs of DefaultFunction and RelayFunction",
    )
