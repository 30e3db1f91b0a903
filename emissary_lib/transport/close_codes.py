"""What a close code asks of whoever comes back (docs/protocol.md rule 5.2-11)."""

from __future__ import annotations

import enum
from typing import Final

from emissary_lib.exceptions import LinkClosedError


class Advice(enum.Enum):
    """How to come back."""

    #: At once: the connection is gone, and nothing is known of why, or it need not happen again.
    AT_ONCE = "at once"
    #: Late, and with little: too much was sent.
    LATER = "later"
    #: At once, with shorter messages.
    SHORTER = "shorter"


#: Codes of RFC 6455 section 7.4.1 and of its registry that ask for something; API Gateway's are listed in the
#: API Gateway developer guide ("WebSocket API quotas": 1009) and in AWS's agent toolkit (1008, 1011, 1012).
_ADVICE: Final = {1008: Advice.LATER, 1009: Advice.SHORTER, 1013: Advice.LATER}


def advice(error: Exception) -> Advice:
    """What the end of a connection asks for; an error that has no close code asks for nothing."""
    code = error.close_code if isinstance(error, LinkClosedError) else None
    return Advice.AT_ONCE if code is None else _ADVICE.get(code, Advice.AT_ONCE)
