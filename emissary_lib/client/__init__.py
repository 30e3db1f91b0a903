"""The dialer's end: dials, sockets, forwards and health checks, over one WebSocket for each relay."""

from typing import Final

#: Seconds that ``dial`` may take unless told otherwise: enough for Lambda functions that start from cold.
DIAL_TIMEOUT: Final = 20.0

#: Connections that one relay carries at once unless told otherwise, and the most that it can
#: (docs/protocol.md section 11.2).
CONNECTIONS_PER_RELAY: Final = 32
MAX_CONNECTIONS: Final = 64

#: Seconds for which a relay that can carry more connections is kept without one, unless told otherwise.
RELAY_IDLE_SECONDS: Final = 60.0
