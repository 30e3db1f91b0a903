"""Errors of the demo and the bench."""

from __future__ import annotations

from emissary_lib.protocol.errors import ConfigError, EmissaryError


class DemoError(EmissaryError):
    """The demo could not be run, or what it did does not stand in the database; the text says which."""


class MissingPackageError(ConfigError):
    """A package of an optional extra is not installed; the text says what to install."""


class PostgresError(DemoError):
    """The embedded PostgreSQL did not start; the text ends with the last lines of its log."""
