"""TLS alerts, told by their length (docs/protocol.md rule 6-22)."""

from __future__ import annotations

from typing import Final

#: Most bytes at a stream's end that are looked at: a few alerts.
LONGEST: Final = 128

#: Bytes of a record's header: type, version, length (RFC 8446 section 5.1).
_HEADER: Final = 5

_ALERT: Final = 21
_APPLICATION_DATA: Final = 23

#: Lengths of an alert that TLS 1.3 has encrypted: its two bytes, its type and a tag of 16 bytes (RFC 8446
#: sections 5.2 and 6); and the same with the 16 zeros by which Java pads it.
_ENCRYPTED: Final = (19, 35)


#: Of the shortest alert: one that is not encrypted.
_SHORTEST: Final = _HEADER + 2


def ends_in_tls_alert(data: bytes) -> bool:
    """Whether a whole TLS alert stands at the end: nothing is to follow one (RFC 8446 section 6).

    Some 32 bits of a record's header tell, so that bytes which are none rarely look like one.

    Args:
        data: Of a stream the last, :data:`LONGEST` bytes or fewer.
    """
    return any(only_tls_alerts(data[at:]) for at in range(len(data) - _SHORTEST + 1))


def only_tls_alerts(data: bytes) -> bool:
    """Whether these are TLS alerts, whole, and nothing else.

    That a connection is closed is all that an alert at its end says. TLS 1.3 hides what a record is: one of a
    program's with just 2 bytes, or 18, cannot be told from an alert.

    Args:
        data: From the beginning of a record on.
    """
    at = 0
    while at < len(data):
        header = data[at : at + _HEADER]
        if len(header) < _HEADER or header[1] != 3:
            return False
        length = int.from_bytes(header[3:])
        if header[0] != _ALERT and (header[0] != _APPLICATION_DATA or length not in _ENCRYPTED):
            return False
        at += _HEADER + length
    return at == len(data) > 0
