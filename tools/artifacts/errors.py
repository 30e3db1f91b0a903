"""What can go wrong while building."""

from __future__ import annotations


class BuildError(Exception):
    """An artifact cannot be built; the text says why and what to do."""
