"""Who a sender's peer is, remembered by one execution environment."""

from __future__ import annotations

from typing import Final

#: Pairs remembered, at most: far more than one environment sees, and less than a megabyte.
_MOST: Final = 4096


class PeerCache:
    """(sender's connection, generation) -> peer's connection. An absent peer is never remembered.

    A stale entry is never hit again, because each new connection of either side has a new generation. The
    cache saves reads; nothing depends on it. Not thread-safe: Lambda runs one invocation at a time.
    """

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._peers: dict[tuple[str, int], str] = {}

    def __len__(self) -> int:
        return len(self._peers)

    def get(self, sender: str, generation: int) -> str | None:
        """The peer, if it is remembered."""
        return self._peers.get((sender, generation))

    def remember(self, sender: str, generation: int, peer: str) -> None:
        """Note a peer; the oldest entry makes room for it."""
        if len(self._peers) >= self._most:
            del self._peers[next(iter(self._peers))]
        self._peers[sender, generation] = peer

    def forget(self, sender: str, generation: int) -> None:
        """Drop an entry, if there is one."""
        self._peers.pop((sender, generation), None)
