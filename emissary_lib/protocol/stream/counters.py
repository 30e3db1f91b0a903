"""What a session has counted so far."""

from __future__ import annotations


class Counters:
    """All counts are of this side, since the session began.

    Attributes:
        bytes_sent: Stream bytes sent for the first time, the SOCKS5 exchange included.
        bytes_received: Stream bytes that arrived for the first time.
        messages_sent: Messages of any type.
        messages_received: Messages of any type, gateway errors included.
        retransmits: Frames with stream bytes sent again.
        losses: Frames taken for lost.
        duplicates: Frames that brought nothing new.
        bare_acks: ACK frames sent.
        pongs: PONG frames received.
        gateway_errors: API Gateway's own error messages, and messages that were refused.
        window_probes: Questions about a window that stayed shut.
        link_losses: Times that our own WebSocket was gone.
        resumes: Times that it was replaced.
    """

    __slots__ = (
        "bare_acks",
        "bytes_received",
        "bytes_sent",
        "duplicates",
        "gateway_errors",
        "link_losses",
        "losses",
        "messages_received",
        "messages_sent",
        "pongs",
        "resumes",
        "retransmits",
        "window_probes",
    )

    def __init__(self) -> None:
        self.bytes_sent = 0
        self.bytes_received = 0
        self.messages_sent = 0
        self.messages_received = 0
        self.retransmits = 0
        self.losses = 0
        self.duplicates = 0
        self.bare_acks = 0
        self.pongs = 0
        self.gateway_errors = 0
        self.window_probes = 0
        self.link_losses = 0
        self.resumes = 0

    def __repr__(self) -> str:
        return f"Counters({', '.join(f'{name}={getattr(self, name)}' for name in self.__slots__)})"
