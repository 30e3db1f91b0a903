"""The dialer's end: dials, sockets, forwards and health checks, over one WebSocket for each tunnel."""

from typing import Final

#: Seconds that ``dial`` may take unless told otherwise: enough for Lambda functions that start from cold.
DIAL_TIMEOUT: Final = 20.0
