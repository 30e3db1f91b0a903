"""Errors of the local cloud; all derive from :class:`LocalCloudError`."""

from __future__ import annotations


class LocalCloudError(Exception):
    """The local cloud could not start, or one of its processes died; the text names the cause."""


class MissingPackagesError(LocalCloudError, ModuleNotFoundError):
    """Packages are not installed that the local cloud cannot run without; the text names them."""


class SettingsError(LocalCloudError, ValueError):
    """A setting of the local cloud is wrong; the text names it."""


class TemplateError(LocalCloudError, ValueError):
    """The template cannot be read or uses something the local cloud does not know.

    Attributes:
        where: Path inside the template, such as ``Resources.RelayFunction.Properties.Handler``; empty
            when the file as a whole is at fault.
    """

    def __init__(self, message: str, *, where: str = "") -> None:
        super().__init__(f"{where}: {message}" if where else message)
        self.where = where


class UnknownFunctionError(LocalCloudError, LookupError):
    """No function of that name is in the template."""
