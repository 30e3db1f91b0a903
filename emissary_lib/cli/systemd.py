"""Telling systemd how a service is (sd_notify(3)), in the few lines that the protocol takes."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping
from typing import Final

from emissary_lib.system import UNIX

#: Names the socket; set for a service of ``Type=notify``.
VARIABLE: Final = "NOTIFY_SOCKET"

#: What to tell.
READY: Final = "READY=1"
STOPPING: Final = "STOPPING=1"


def notify(state: str, environ: Mapping[str, str] = os.environ) -> None:
    """Tell the service manager, if one waits for it; nobody is there to hear that it failed.

    Source: sd_notify(3): a datagram to the socket that the variable names, ``@`` for one without a file.
    """
    address = environ.get(VARIABLE, "")
    if UNIX is None or address[:1] not in ("/", "@"):
        return
    with contextlib.suppress(OSError), socket.socket(UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(state.encode(), address.replace("@", "\0", 1) if address[0] == "@" else address)
