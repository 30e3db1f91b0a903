"""The three handlers over fakes, with nothing kept between events unless a test asks for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from emissary_lib.bridge.limits import NO_LIMITS
from emissary_lib.bridge.session import RELAY_TIME, SessionRecord
from emissary_lib.protocol.auth.keys import KeyRing
from emissary_lib.protocol.auth.macs import encode_unpadded, http_date, resume_mac
from emissary_lib.protocol.constants import GRACE
from emissary_lib.protocol.opening.exchange import opening_bytes
from emissary_lib.protocol.targets.allow_list import AllowList, Target
from emissary_lib.protocol.wire.frames import Frame, FrameType, encode
from functions.common import wiring
from functions.common.adapters.keys import EnvironmentKeys
from functions.common.ports import KeySource
from functions.common.responses import Response
from functions.common.routes.peers import PeerCache
from functions.connect import app as connect_app
from functions.default import app as default_app
from functions.disconnect import app as disconnect_app
from tests.helpers.events import (
    DATE,
    DIALER,
    DIALER_AGAIN,
    HOST,
    INSTANCE,
    KEY,
    NONCE,
    NOW,
    RELAY,
    RESUME_NONCE,
    SESSION,
    TARGET,
    load_event,
)
from tests.helpers.fakes import FakeClock, FakeEntropy, FakeLauncher, FakeLink, FakeStore

ALLOWED = AllowList.parse('[{"host": "db.internal", "port": 5432}]')


class Bridge:
    """The bridge of one stage.

    Args:
        warm: Keep the peer cache from event to event, as one environment does. By default every event meets
            a new environment.
    """

    def __init__(self, *, warm: bool = False) -> None:
        self.store = FakeStore()
        self.link = FakeLink()
        self.launcher = FakeLauncher()
        self.clock = FakeClock(NOW)
        self.entropy = FakeEntropy()
        self.keys: KeySource = EnvironmentKeys(KeyRing([KEY]))
        self.limits = NO_LIMITS
        self.allow, self.allow_fault = ALLOWED, ""
        self.relay_time = RELAY_TIME
        self.grace = GRACE
        self.nat = True
        self.peers: PeerCache | None = PeerCache() if warm else None

    def connect(self, event: Mapping[str, Any]) -> Response:
        handler = connect_app.make_handler(
            wiring.on_connect(
                self.store,
                self.keys,
                self.clock,
                launcher=self.launcher,
                allow=self.allow,
                entropy=self.entropy,
                server_version="0.1.0",
                limits=self.limits,
                relay_time=self.relay_time,
                allow_fault=self.allow_fault,
            )
        )
        return handler(event, None)

    def message(self, event: Mapping[str, Any]) -> Response:
        use_case = wiring.on_message(
            self.store,
            self.link,
            launcher=self.launcher,
            keys=self.keys,
            allow=self.allow,
            peers=PeerCache() if self.peers is None else self.peers,
            clock=self.clock,
            entropy=self.entropy,
            server_version="0.1.0",
            limits=self.limits,
            allow_fault=self.allow_fault,
            relay_time=self.relay_time,
            grace=self.grace,
            nat=self.nat,
        )
        return default_app.make_handler(use_case)(event, None)

    def disconnect(self, event: Mapping[str, Any]) -> Response:
        use_case = wiring.on_disconnect(
            self.store, self.link, clock=self.clock, entropy=self.entropy, grace=self.grace, nat=self.nat
        )
        return disconnect_app.make_handler(use_case)(event, None)

    def send(self, sender: str, frame: Frame, *, request_id: str = "request=") -> Response:
        """A client sends one frame."""
        event = load_event("default_data", connection_id=sender, body=encode(frame), request_id=request_id)
        return self.message(event)

    def send_opening(self, offset: int, payload: bytes, *, sender: str = DIALER) -> Response:
        return self.send(
            sender, Frame(FrameType.OPENING, generation=1, window=65_536, offset=offset, payload=payload)
        )

    def admit(self) -> None:
        assert self.connect(load_event("connect_dialer"))["statusCode"] == 200

    def launch(self) -> None:
        self.admit()
        assert self.message(load_event("default_opening")) == {"statusCode": 200}
        assert len(self.launcher.events) == 1

    def open(self) -> None:
        """A dialer and a relay, connected with each other."""
        self.launch()
        token = self.launcher.events[0]["relay_token"]
        event = load_event("connect_relay", headers={"X-Emissary-Relay-Token": token})
        assert self.connect(event)["statusCode"] == 200

    def resume(
        self,
        epoch: int = 2,
        *,
        connection_id: str = DIALER_AGAIN,
        headers: Mapping[str, str | None] | None = None,
    ) -> Response:
        """The dialer comes back, signing at the bridge's time."""
        date = http_date(self.clock.now)
        mac = resume_mac(KEY, date=date, nonce=RESUME_NONCE, host=HOST, session=SESSION, epoch=epoch)
        shown = {
            "X-Emissary-Date": date,
            "X-Emissary-Mac": encode_unpadded(mac),
            "X-Emissary-Epoch": str(epoch),
            "X-Emissary-Resume-Token": self.launcher.events[-1]["resume_token"],
        }
        event = load_event("connect_resume", connection_id=connection_id, headers=shown | dict(headers or {}))
        return self.connect(event)

    def reclaim(self, epoch: int = 2, *, connection_id: str = "relay again=") -> Response:
        """The relay comes back."""
        headers = {
            "X-Emissary-Relay-Token": self.launcher.events[-1]["relay_token"],
            "X-Emissary-Epoch": str(epoch),
        }
        return self.connect(load_event("connect_relay", connection_id=connection_id, headers=headers))

    @property
    def session(self) -> SessionRecord:
        return self.store.sessions[SESSION]


def example_stream(target: str = TARGET) -> bytes:
    """The dialer's whole SOCKS5 stream."""
    return opening_bytes(key=KEY, date=DATE, nonce=NONCE, target=Target.parse(target))


__all__ = ["ALLOWED", "DIALER", "INSTANCE", "RELAY", "SESSION", "Bridge", "example_stream"]
