"""Errors the pure core can raise. The whole tree is shown in :mod:`emissary_lib.exceptions`.

Every error Emissary raises on purpose derives from :class:`EmissaryError`. Anything else that escapes
the core is a bug.
"""

from __future__ import annotations

from typing import Any, ClassVar

from emissary_lib.protocol.codes import Code


class EmissaryError(Exception):
    """Base of every error Emissary raises on purpose; one ``except`` catches them all.

    All can be pickled: a process of multiprocessing's raises them at whoever waits for its result.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        state = dict(self.__dict__)
        if isinstance(self, OSError):
            state["errno"] = self.errno
        return _restore, (type(self), self.args, state)


def _restore(kind: type[EmissaryError], args: tuple[Any, ...], state: dict[str, Any]) -> EmissaryError:
    """An error as it was; its ``__init__`` would want other arguments than its text."""
    error = kind.__new__(kind)
    error.args = args
    for name, value in state.items():
        setattr(error, name, value)
    return error


class ConfigError(EmissaryError, ValueError):
    """One or more settings are wrong; the message lists every fault at once.

    Attributes:
        faults: One sentence per bad setting, in the order in which they were found.
    """

    def __init__(self, *faults: str) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


class ProtocolError(EmissaryError):
    """A rule of docs/protocol.md was broken; never raised itself, only its subclasses."""


class LocalProtocolError(ProtocolError):
    """The caller on this side broke the rules: a bug in Emissary or in the code that drives its core."""


class RemoteProtocolError(ProtocolError):
    """The peer broke the rules; the session cannot go on.

    Attributes:
        code: What the session ends with (docs/protocol.md section 8).
    """

    code: ClassVar[Code] = Code.PROTOCOL_ERROR


class FrameError(RemoteProtocolError):
    """A malformed, oversized or unknown frame."""


class FlowControlError(RemoteProtocolError):
    """Bytes past the window, or past the final size."""

    code = Code.FLOW_CONTROL_ERROR


class UnsupportedVersionError(RemoteProtocolError):
    """The peer speaks a version of the protocol that this side does not."""

    code = Code.UNSUPPORTED_VERSION


class AuthenticationError(EmissaryError, PermissionError):
    """A MAC, date, nonce or token was missing or wrong.

    The peer is told the same thing for every cause; the cause, in this exception's text, goes to our own
    log. It never contains a key, a MAC, a nonce or a token.

    Attributes:
        code: What a session ends with for it (docs/protocol.md section 8).
    """

    code: ClassVar[Code] = Code.AUTHENTICATION_FAILED
