"""Errors that only the functions meet; all under :class:`EmissaryError`. Their HTTP status: ``responses.py``.

::

    EmissaryError
    |- EventError            not an event that API Gateway makes
    |- SubprotocolError      the upgrade request does not offer ours
    |- NonceBurntError       a nonce is used a second time
    |- ClaimRefusedError     a relay (or a resuming client) claims what is not its own
    |- KeysUnavailableError  the shared keys cannot be fetched
    |- StoreError            the session table did not do what it was asked
    |- LimitReachedError     there are as many sessions as are allowed
    |- LaunchError           the relay could not be invoked
    `- PeerError             a message was not posted
       |- PeerGoneError         410: the connection does not exist any more
       |- PeerBusyError         429: throttled, or the receiver's buffer is full
       `- PeerUnreachableError  anything else, no answer included
          `- PeerRefusedError      a 4xx: it may pass, but hardly of itself
             `- MessageTooLargeError  413: this message will never be posted as it is
"""

from __future__ import annotations

from emissary_lib.bridge.session import SessionRecord
from emissary_lib.protocol.errors import EmissaryError


class EventError(EmissaryError, ValueError):
    """Not an event that API Gateway makes: the function was invoked by something else."""


class SubprotocolError(EmissaryError):
    """The upgrade request does not offer the subprotocol ``emissary.v2``."""


class NonceBurntError(EmissaryError):
    """The nonce was used before; a dialer that starts over draws a fresh one."""


class ClaimRefusedError(EmissaryError):
    """The session is not this relay's to claim; the text says why, and is for our log only.

    Attributes:
        session: As it was then; None if there is none, or it was not read.
    """

    def __init__(self, cause: str, session: SessionRecord | None = None) -> None:
        super().__init__(cause)
        self.session = session


class KeysUnavailableError(EmissaryError):
    """The shared keys cannot be fetched, or are none; the text never holds one."""


class StoreError(EmissaryError):
    """The session table could not be reached, or refused; nothing is known of the outcome."""


class LimitReachedError(EmissaryError):
    """There are as many sessions as are allowed; the text, which the dialer is told, says of which limit."""


class LaunchError(EmissaryError):
    """The relay could not be invoked; the dialer's next opening message tries again."""


class PeerError(EmissaryError):
    """A message was not posted to a connection; never raised itself."""


class PeerGoneError(PeerError):
    """The connection does not exist (any more, or yet): status 410."""


class PeerBusyError(PeerError):
    """Throttled, or the receiving client's buffer is full: status 429. Try again later."""


class PeerUnreachableError(PeerError):
    """The post failed for another reason, or was not answered in time; it may have arrived."""


class PeerRefusedError(PeerUnreachableError):
    """A 4xx other than 410 and 429: permissions, or the request itself. It did not arrive."""


class MessageTooLargeError(PeerRefusedError):
    """Status 413: the message is larger than the gateway allows. Its bytes may pass as shorter ones."""
