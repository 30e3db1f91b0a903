"""What a session has counted so far."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
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

    bytes_sent: int = 0
    bytes_received: int = 0
    messages_sent: int = 0
    messages_received: int = 0
    retransmits: int = 0
    losses: int = 0
    duplicates: int = 0
    bare_acks: int = 0
    pongs: int = 0
    gateway_errors: int = 0
    window_probes: int = 0
    link_losses: int = 0
    resumes: int = 0
