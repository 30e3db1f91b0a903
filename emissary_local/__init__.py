"""The local cloud: runs a SAM template on this machine, as strict as AWS. Needs the ``local`` extra.

:class:`LocalCloud` is all that users need; :class:`Faults` and :class:`Limits` are its knobs. Loaded lazily,
so that a module of this package can be imported without the others' dependencies.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from emissary_local.application import Application
    from emissary_local.cloud import Cloud
    from emissary_local.emissary import LocalCloud
    from emissary_local.errors import LocalCloudError, SettingsError, TemplateError
    from emissary_local.faults import Faults
    from emissary_local.limits import Limits

_HOMES: Final = {
    "Application": "application",
    "Cloud": "cloud",
    "Faults": "faults",
    "Limits": "limits",
    "LocalCloud": "emissary",
    "LocalCloudError": "errors",
    "SettingsError": "errors",
    "TemplateError": "errors",
}

__all__ = [
    "Application",
    "Cloud",
    "Faults",
    "Limits",
    "LocalCloud",
    "LocalCloudError",
    "SettingsError",
    "TemplateError",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
