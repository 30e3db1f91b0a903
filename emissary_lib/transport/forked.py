"""A forked child has copies of every descriptor and lock, and none of the threads: no tunnel is its own."""

from __future__ import annotations

import os
import socket
import weakref

from emissary_lib.system import in_child


def keep_from_children(*socks: socket.socket) -> None:
    """Close the copies that a child that is forked from now on has of these: they are of use to us alone.

    A copy would keep the connection up when we are gone, or have closed it.
    """
    for sock in socks:
        _kept.add(sock)


_kept: weakref.WeakSet[socket.socket] = weakref.WeakSet()


def _close_copies() -> None:
    for sock in list(_kept):
        # The descriptor alone: what TLS keeps of it, another thread may have been changing.
        descriptor = sock.detach()
        if descriptor >= 0:
            os.close(descriptor)


in_child(_close_copies)
