"""Who an end of a session is: the dialer, outside, or the relay, inside the VPC."""

from __future__ import annotations

import enum

from emissary_lib.protocol.codes import Code


class Role(enum.Enum):
    """One end of a session."""

    DIALER = "dialer"
    RELAY = "relay"

    @property
    def other(self) -> Role:
        """The peer's role."""
        return Role.RELAY if self is Role.DIALER else Role.DIALER

    @property
    def wire(self) -> int:
        """Its number in a DISCONNECTED frame (docs/protocol.md section 2)."""
        return 1 if self is Role.DIALER else 2

    @property
    def gone(self) -> Code:
        """Why a session ends when this end's connection is lost for good."""
        return Code.DIALER_GONE if self is Role.DIALER else Code.RELAY_GONE
