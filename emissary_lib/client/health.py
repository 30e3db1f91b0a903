"""Asks the bridge how it is: one connection, one question, no relay (docs/protocol.md section 3.6)."""

from __future__ import annotations

import contextlib
import os

from emissary_lib.client.endpoint import Endpoint
from emissary_lib.client.handshake import Upgrade, connect_with_retry
from emissary_lib.exceptions import AuthenticationError, EmissaryError, RemoteProtocolError
from emissary_lib.protocol.auth.keys import Key
from emissary_lib.protocol.auth.macs import verify_server_mac
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.constants import HEALTH_INTERVAL
from emissary_lib.protocol.record import Record
from emissary_lib.protocol.wire.frames import Frame, FrameType, decode, encode
from emissary_lib.protocol.wire.health import QUESTION_BYTES, Healthy, Usage
from emissary_lib.protocol.wire.payloads import Ended, Reset
from emissary_lib.transport.deadline import Deadline


class Health(Record):
    """What a bridge says of itself, once it has proved that it knows the key.

    Attributes:
        server_version: Its version.
        protocol_version: Which version of the protocol it speaks.
        key_ids: The ids of the keys that are valid.
        usage: How many sessions there are, and may be.
        key_usage: The same of the key that was asked with.
        fault: What is wrong with the settings of the stack, with which no target can be reached; empty if the
            bridge knows of nothing.
    """

    server_version: str
    protocol_version: int
    key_ids: tuple[int, ...]
    usage: Usage
    key_usage: Usage
    fault: str = ""


def check_health(endpoint: Endpoint, key: Key, deadline: Deadline) -> Health:
    """Connect, ask, close. No relay starts, and the session leaves no record.

    Raises:
        AuthenticationError: The key is unknown or wrong; ClockSkewError if the clock is, ServerProofError if
            the server does not know the key itself.
        TransportError: The gateway was not reached, refused, or cut the connection.
        RemoteProtocolError: The bridge is of a release that knows no such question, or breaks the protocol.
        TimeoutError: No answer before the deadline.

    Blocking: at most until the deadline. Any thread.
    """
    upgrade = connect_with_retry(endpoint, key, deadline)
    with contextlib.ExitStack() as stack:
        stack.callback(upgrade.transport.release)
        stack.callback(upgrade.transport.close)
        answer = _ask(upgrade, deadline)
        verify_server_mac(answer.proof, key, date=upgrade.date, nonce=upgrade.nonce, host=endpoint.host)
        return Health(
            answer.server_version,
            answer.protocol_version,
            answer.key_ids,
            answer.usage,
            answer.key_usage,
            answer.fault,
        )


def _ask(upgrade: Upgrade, deadline: Deadline) -> Healthy:
    """Repeat the question until it is answered: it may be lost, and so may the answer."""
    question = os.urandom(QUESTION_BYTES)
    message = encode(Frame(FrameType.HEALTH, generation=1, payload=question))
    while True:
        upgrade.transport.send(message, deadline.remaining())
        patience = deadline.within(HEALTH_INTERVAL)
        while not patience.passed():
            try:
                came = upgrade.transport.recv(patience.remaining())
            except TimeoutError:
                break
            answer = read_answer(came)
            if answer is not None and answer.question == question:
                return answer
        if deadline.passed():
            raise TimeoutError("the bridge let us in, but did not say how it is; see the log of $default")


def read_answer(message: bytes) -> Healthy | None:
    """The bridge's answer to whatever HEALTH; ``None`` for a message that is none.

    Raises:
        AuthenticationError: The key was withdrawn.
        RemoteProtocolError: The bridge answers no such question, or breaks the protocol.
    """
    if message.startswith(b"{"):
        return None  # the gateway's own error: a message was not handled
    frame = decode(message)
    match frame.type:
        case FrameType.HEALTHY:
            return Healthy.decode(frame.payload)
        case FrameType.RESET:
            raise _reset_error(Reset.decode(frame.payload))
        case FrameType.ENDED:
            ended = Ended.decode(frame.payload)
            raise RemoteProtocolError(
                f"asking for health: the bridge says {ended.reason} ({ended.code.name})"
            )
    return None


def _reset_error(reset: Reset) -> EmissaryError:
    if reset.code is Code.AUTHENTICATION_FAILED:
        return AuthenticationError(f"asking for health: {reset.reason}")
    return RemoteProtocolError(
        f"asking for health: the bridge says {reset.reason!r} ({reset.code.name}); it is of an older release "
        "if it does not know HEALTH"
    )
