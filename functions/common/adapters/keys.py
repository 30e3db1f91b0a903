"""Where the shared keys come from: today the environment."""

from __future__ import annotations

from emissary_lib.protocol.keys import KeyRing


class EnvironmentKeys:
    """:class:`ports.KeySource` of keys that were read with the settings and stay as they are."""

    def __init__(self, ring: KeyRing) -> None:
        self._ring = ring

    def keys(self) -> KeyRing:
        """See :meth:`ports.KeySource.keys`."""
        return self._ring
