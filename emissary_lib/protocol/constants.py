"""Limits and times of the protocol, each with its unit and its source.

A test pins every number here to docs/protocol.md, so that none can change by accident.
"""

from __future__ import annotations

from typing import Final

#: WebSocket subprotocol that both clients offer (docs/protocol.md section 1).
SUBPROTOCOL: Final = "emissary.v2"

#: Version in every frame's first byte (section 2).
VERSION: Final = 2

#: Longest text message, in characters.
#:
#: API Gateway closes the connection (1009) above 128 KB. The page does not say whether a KB has 1,000 or
#: 1,024 bytes, and the exact edge is unproven, so this stays below the smaller reading.
#: Source: API Gateway developer guide, "Quotas for configuring and running a WebSocket API".
MAX_MESSAGE: Final = 126_000

#: Longest WebSocket fragment, in characters (same page: "WebSocket frame size 32 KB").
MAX_FRAGMENT: Final = 31_000

#: Header bytes before base64 (section 2), and the characters they make.
HEADER_BYTES: Final = 24
HEADER_CHARS: Final = 32

#: Largest payload of one frame, in bytes: what fits MAX_MESSAGE after base64, a multiple of three.
MAX_PAYLOAD: Final = (MAX_MESSAGE - HEADER_CHARS) // 4 * 3

#: The same of a message of one fragment (section 4.8).
SHORT_PAYLOAD: Final = (MAX_FRAGMENT - HEADER_CHARS) // 4 * 3

#: As many times more short messages may be in flight as long ones (section 4.8).
SHORTER: Final = 4

#: Receive capacity of a stream, in bytes, unless configured (section 4.2).
DEFAULT_CAPACITY: Final = 2 * 1024 * 1024

#: What a sender may send before it has heard a window, in bytes (section 4.2).
INITIAL_WINDOW: Final = 65_536

#: SACK ranges in one ACK, at most (section 4.3).
MAX_SACK_RANGES: Final = 32

#: How long an acknowledgement waits for a DATA frame to carry it, in seconds (section 4.3).
ACK_DELAY: Final = 0.2

#: Least time between an acknowledgement and the next that only repeats it, in seconds (section 4.3).
ACK_REPEAT: Final = 0.05

#: How long a relay waits before it tells how far a target has got that holds up the end of a stream, in
#: seconds (section 4.3).
ACK_PROGRESS: Final = 0.5

#: Retransmission timer, in seconds (section 4.4; RFC 6298 has the form, the bounds are ours).
RTO_INITIAL: Final = 3.0
RTO_MIN: Final = 1.0
RTO_MAX: Final = 60.0

#: Messages in flight: (start, most) towards ``$default`` and for the relay's direct posts (section 4.5).
DIALER_FLIGHT: Final = (4, 16)
RELAY_FLIGHT: Final = (8, 32)

#: Frames that are not full and may be in flight before bytes are gathered (section 4.5).
SMALL_FRAMES: Final = 2

#: Pause after a gateway error: first and longest, in seconds (section 4.6).
ERROR_PAUSE: Final = (0.1, 5.0)

#: A HEALTH that was not answered is repeated this often, in seconds (section 3.6).
HEALTH_INTERVAL: Final = 1.0

#: Keepalive, in seconds (section 4.7). API Gateway cuts a connection after 10 idle minutes, and NAT
#: gateways and endpoints forget a flow after 350 s, so the interval is below both.
PING_INTERVAL: Final = 240.0
PING_WHEN_UNACKED: Final = 30.0
PONG_DEADLINE: Final = 20.0
#: A PING without an answer is repeated this often until then, because any message may be lost.
PING_REPEAT: Final = 5.0

#: The relay's watch, in seconds (section 5.5): silence that is asked about while data is unacknowledged,
#: and how long the bridge's answer may take.
PROBE_WHEN_UNACKED: Final = 20.0
PROBE_DEADLINE: Final = 10.0

#: How long a connection that is gone is waited for, in seconds (section 5.2).
GRACE: Final = 60.0

#: When GOAWAY goes out, in seconds before the relay's end (section 5.6).
GOAWAY_BEFORE: Final = (30.0, 10.0)

#: How long before Lambda's limit the relay ends, in seconds (section 5.6).
END_MARGIN: Final = 5.0

#: Waits between two attempts to reconnect, in seconds: first, and longest (section 5.2).
BACK_OFF: Final = (0.1, 2.0)

#: Longest that one attempt to reconnect may take, in seconds (section 5.2).
ATTEMPT_TIMEOUT: Final = 10.0

#: A connection that ended sooner than this after its 101, in seconds, and moved no byte, does not end the
#: back-off (section 5.2).
STEADY_AFTER: Final = 5.0

#: Seconds between two RESUME messages; the last one is repeated (section 5.3).
RESUME_INTERVALS: Final = (1.0, 2.0, 4.0, 5.0)

#: A peer that is waited for is given at least this long on another connection of ours, in seconds: enough
#: for the first few RESUMEs (section 5.4).
LEAST_PATIENCE: Final = sum(RESUME_INTERVALS[:3])

#: A relay whose posts meet nothing but refusals (4xx) for this long ends its session, in seconds (section 6).
REFUSED_FOR: Final = 20.0

#: How long a target is given, once its session is cut off, to take what had arrived for it, in seconds
#: (section 6).
LINGER: Final = 5.0

#: END and RESET are repeated this often, and for this long, in seconds (section 6).
END_INTERVAL: Final = 1.0
END_DEADLINE: Final = 5.0

#: Messages a second that a client can have sent, for its figures to be believed (section 6): as many as the
#: route of all dialers lets through (template.yaml), and more than a relay's posts reach.
MAX_MESSAGE_RATE: Final = 2000

#: How long a relay waits before it tells the bridge again how many connections its shared session has, in
#: seconds (section 11.7): each time costs a write.
CONNECTIONS_INTERVAL: Final = 10.0

#: Clock difference that a date in a MAC may show, in seconds (section 3.1).
CLOCK_SKEW: Final = 15 * 60.0

#: Opening: how much of the dialer's stream its fragments may cover, how many bytes they may have together,
#: and how much more than its bytes each counts (section 3.2).
MAX_OPENING_BYTES: Final = 4096
MAX_OPENING_TOTAL: Final = 8192
FRAGMENT_OVERHEAD: Final = 8

#: How much of its stream a dialer may show with its upgrade, in bytes (section 3.7). API Gateway takes 10,240
#: bytes of headers in all, and base64 makes a third more of these.
MAX_SHOWN_BYTES: Final = 3072

#: A relay that is quicker than its dialer's 101: the wait before a post is tried again, first and longest,
#: and how long it is waited for in all, in seconds (section 3.7).
ARRIVAL_WAIT: Final = (0.02, 0.5)
ARRIVAL_TIME: Final = 5.0

#: How long a session may be opening, from the upgrade's answer to the relay's claim, in seconds
#: (section 3.4): as long as an asynchronous invocation may wait in Lambda's queue (template.yaml,
#: MaximumEventAgeInSeconds), so that a relay that starts later finds the session expired.
OPENING_TIME: Final = 60.0

#: A launched but unclaimed session is launched again after this long, in seconds (section 3.4).
RELAUNCH_AFTER: Final = 5.0

#: How long a relay tries to claim against 429 and 5xx, in seconds (section 3.4).
CLAIM_DEADLINE: Final = 10.0
