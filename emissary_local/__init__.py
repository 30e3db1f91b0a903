"""The local cloud: runs a SAM template on this machine, as strict as AWS. Needs the ``local`` extra.

:class:`LocalCloud` is all that users need; :class:`Faults` and :class:`Limits` are its knobs. Loaded lazily,
so that a module of this package can be imported without the others' dependencies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emissary_local.cloud import LocalCloud
    from emissary_local.errors import LocalCloudError, TemplateError
    from emissary_local.faults import Faults
    from emissary_local.gateway.limits import Limits

__all__ = ["Faults", "Limits", "LocalCloud", "LocalCloudError", "TemplateError"]

_HOMES = {
    "Faults": "faults",
    "Limits": "gateway.limits",
    "LocalCloud": "cloud",
    "LocalCloudError": "errors",
    "TemplateError": "errors",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
