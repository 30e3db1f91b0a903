"""Emissary: reach databases inside a private VPC through API Gateway and Lambda."""

from __future__ import annotations

from emissary_lib._version import __version__

__all__ = ["__version__"]
