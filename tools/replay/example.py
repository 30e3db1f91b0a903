"""The example session that the events in ``events/`` are of.

Key, nonces and tokens are documented, fixed, and secret to nobody. All times are those of one moment,
:data:`NOW`; :mod:`tools.replay.moment` moves events to the present, and results back.
"""

from __future__ import annotations

from typing import Final

from emissary_lib.protocol.auth.keys import Key
from emissary_lib.protocol.auth.macs import relay_token, session_id
from emissary_lib.protocol.targets.allow_list import Target

#: The example key: 32 bytes, 0 to 31.
KEY: Final = Key(1, bytes(range(32)))
#: The example nonce: 32 bytes, 64 to 95. Its session.
NONCE: Final = bytes(range(64, 96))
SESSION: Final = session_id(NONCE)
#: The example date, and the same moment on the clock.
DATE: Final = "Sun, 22 Nov 2026 10:15:00 GMT"
NOW: Final = 1_795_342_500.0
HOST: Final = "a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com"
STAGE: Final = "emissary"
DIALER: Final = "Uv8abcE0FiACDIA="
RELAY: Final = "Uv8bXdR3FiACReL="
#: The nonce that the dialer signed its next connection with: 32 bytes, 192 to 223.
RESUME_NONCE: Final = bytes(range(192, 224))
#: Its random part: 16 bytes, 128 to 143.
RELAY_TOKEN: Final = relay_token(KEY, session=SESSION, random=bytes(range(128, 144)))
#: 32 bytes, 160 to 191.
RESUME_TOKEN: Final = bytes(range(160, 192))
#: What its opening asks for, and the dialer's window.
TARGET: Final = Target("db.internal", 5432)
WINDOW: Final = 2 * 1024 * 1024
INSTANCE: Final = "0123456789abcdef0123456789abcdef"
