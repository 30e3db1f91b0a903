"""``$connect``: is this a dialer, a relay, or somebody who comes back?"""

from __future__ import annotations

from typing import Final

from emissary_lib.protocol.auth.headers import RELAY_TOKEN, RESUME_TOKEN
from emissary_lib.protocol.constants import SUBPROTOCOL
from emissary_lib.protocol.record import Record
from functions.common import metrics
from functions.common.errors import SubprotocolError
from functions.common.events import GatewayEvent
from functions.common.metrics import Metric
from functions.common.routes.connect_dialer import ConnectDialer
from functions.common.routes.connect_relay import ConnectRelay
from functions.common.routes.connect_resume import ConnectResume

_OFFERED: Final = "Sec-WebSocket-Protocol"


class OnConnect(Record):
    """Admits a WebSocket before it exists. Keeps nothing from one event to the next."""

    dialer: ConnectDialer
    relay: ConnectRelay
    resume: ConnectResume

    def __call__(self, event: GatewayEvent) -> dict[str, str]:
        """Admit, or raise; what each error means to the client is in ``responses.STATUS``.

        Returns:
            The response's headers. API Gateway passes no header on but this one.

        Raises:
            SubprotocolError: ``emissary.v2`` is not offered.
            AuthenticationError: Credentials are absent, malformed or wrong.
            NonceBurntError: A dialer's nonce was used before.
            ClaimRefusedError: Not this client's session.
            KeysUnavailableError: The keys cannot be had.
            StoreError: The table could not be reached.
        """
        offered = event.header(_OFFERED) or ""
        if SUBPROTOCOL not in (name.strip() for name in offered.split(",")):
            raise SubprotocolError(f"the subprotocol {SUBPROTOCOL} is not offered")
        if event.header(RELAY_TOKEN) is not None:
            self.relay(event)
        elif event.header(RESUME_TOKEN) is not None:
            self.resume(event)
        else:
            self.dialer(event)
        metrics.count(Metric.CONNECT_ACCEPTED)
        return {_OFFERED: SUBPROTOCOL}
