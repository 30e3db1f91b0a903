"""HEALTHY's payload: what the bridge says of itself (docs/protocol.md section 3.6)."""

from __future__ import annotations

import struct
from typing import Final

from emissary_lib.protocol.errors import FrameError
from emissary_lib.protocol.record import Record, hidden
from emissary_lib.protocol.wire.payloads import MAX_REASON
from emissary_lib.protocol.wire.text import decode_clean, encode_within

#: Bytes of a HEALTH's question.
QUESTION_BYTES: Final = 8

#: Longest server version, in bytes: its length is one byte.
_VERSION_MAX: Final = 255

_FIXED: Final = struct.Struct(">8s32sBIIIIH")
_KEY_ID: Final = struct.Struct(">I")
_LENGTH: Final = struct.Struct(">H")


class Usage(Record):
    """How far a limit of sessions is used up.

    Attributes:
        sessions: Sessions at once now.
        limit: At most; 0 if they are not limited, and then they are not counted.
    """

    sessions: int = 0
    limit: int = 0

    @property
    def reached(self) -> bool:
        """Whether a further session would be refused."""
        return 0 < self.limit <= self.sessions


class Healthy(Record):
    """HEALTHY.

    Attributes:
        question: The HEALTH's 8 bytes.
        proof: 32 bytes by which the server proves that it knows the key.
        protocol_version: Which version of the protocol it speaks.
        usage: Of all sessions.
        key_usage: Of the sessions of the key that was shown at the upgrade.
        key_ids: The ids of the keys that are valid.
        server_version: The bridge's version.
        fault: What is wrong with the bridge's settings; empty if it knows of nothing, or is of an older
            release, which does not say.
    """

    question: bytes
    proof: bytes = hidden()
    protocol_version: int
    usage: Usage
    key_usage: Usage
    key_ids: tuple[int, ...]
    server_version: str
    fault: str = ""

    def encode(self) -> bytes:
        """The payload; a server version or a fault that is too long is cut."""
        version = encode_within(self.server_version, _VERSION_MAX)
        fixed = _FIXED.pack(
            self.question,
            self.proof,
            self.protocol_version,
            self.usage.sessions,
            self.usage.limit,
            self.key_usage.sessions,
            self.key_usage.limit,
            len(self.key_ids),
        )
        ids = b"".join(_KEY_ID.pack(key_id) for key_id in self.key_ids)
        fault = encode_within(self.fault, MAX_REASON)
        told = _LENGTH.pack(len(fault)) + fault if fault else b""
        return fixed + ids + bytes([len(version)]) + version + told

    @classmethod
    def decode(cls, payload: bytes) -> Healthy:
        """Read it; bytes that a later version may add are ignored.

        Raises:
            FrameError: It is cut short.
        """
        if len(payload) < _FIXED.size:
            raise FrameError(f"HEALTHY: {len(payload)} bytes of payload, at least {_FIXED.size} needed")
        question, proof, version, *counts, keys = _FIXED.unpack_from(payload)
        ids_end = _FIXED.size + keys * _KEY_ID.size
        if len(payload) <= ids_end or len(payload) < ids_end + 1 + payload[ids_end]:
            raise FrameError(f"HEALTHY: {len(payload)} bytes of payload, key ids or version are cut short")
        ids = tuple(number for (number,) in _KEY_ID.iter_unpack(payload[_FIXED.size : ids_end]))
        version_end = ids_end + 1 + payload[ids_end]
        text = decode_clean(payload[ids_end + 1 : version_end])
        fault = _read_fault(payload[version_end:])
        return cls(question, proof, version, Usage(*counts[:2]), Usage(*counts[2:]), ids, text, fault)


def _read_fault(rest: bytes) -> str:
    if not rest:
        return ""  # of an older release, or there is none
    if len(rest) < _LENGTH.size or len(rest) < _LENGTH.size + _LENGTH.unpack_from(rest)[0]:
        raise FrameError(f"HEALTHY: the fault is cut short, {len(rest)} bytes of it")
    (length,) = _LENGTH.unpack_from(rest)
    return decode_clean(rest[_LENGTH.size : _LENGTH.size + length], MAX_REASON)
