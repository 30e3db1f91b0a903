"""The ``Date`` header of the local cloud's HTTP answers."""

from __future__ import annotations

import email.utils
from typing import TypeVar

from aiohttp import web

from emissary_local.faults import FaultEngine

_Response = TypeVar("_Response", bound=web.StreamResponse)


def with_date(response: _Response, faults: FaultEngine) -> _Response:
    """Give ``response`` the cloud's date if that is not this machine's; aiohttp sets the latter by itself."""
    if faults.faults.skew_seconds:
        response.headers["Date"] = email.utils.formatdate(faults.now(), usegmt=True)
    return response
