"""Reserved concurrency of the relay is a limit of sessions: a dial beyond it fails, and does not hang."""

from __future__ import annotations

import pytest

from emissary_lib.exceptions import SessionLimitError
from emissary_lib.protocol.wire.health import Usage
from emissary_local import LocalCloud
from tests.helpers.kinds import OWN
from tests.helpers.local_cloud import DIAL, LINUX_ONLY, PARAMETERS, TEMPLATE, dialer_of
from tests.helpers.servers import Server, echo

pytestmark = [LINUX_ONLY, pytest.mark.slow]


@pytest.mark.parametrize("sessions", ["0", "3"])
def test_a_dial_beyond_the_relays_that_may_run_fails_and_says_so(sessions: str) -> None:
    """Lambda would have taken the launch with a 202, and kept it in its queue."""
    given = {**PARAMETERS, "RelayConcurrency": "1", "MaxSessions": sessions}
    with LocalCloud(TEMPLATE, parameters=given) as cloud, Server(echo) as target:
        with dialer_of(cloud, **OWN.options) as dialer, dialer.dial(target, DIAL):
            with pytest.raises(SessionLimitError, match="limit of 1 sessions reached"):
                dialer.dial(target, DIAL)
            assert dialer.health(DIAL).usage == Usage(1, 1)
