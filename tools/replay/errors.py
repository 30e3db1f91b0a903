"""What can go wrong while replaying."""

from __future__ import annotations


class ReplayError(Exception):
    """A replay cannot be done; the text says why and what to do. A difference is no error."""
