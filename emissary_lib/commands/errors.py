"""What can go wrong in a command, beside what can go wrong in the library."""

from __future__ import annotations

from emissary_lib.exceptions import EmissaryError


class ListenError(EmissaryError):
    """The local address cannot be listened on."""


class CommandError(EmissaryError):
    """The command that ``emissary exec`` was to run cannot be started."""
