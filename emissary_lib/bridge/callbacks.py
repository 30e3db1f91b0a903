"""Where ``@connections`` is: the functions post to it, and an operator who kills sessions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

#: The SDK's standard variable for "call this address instead". Not ``AWS_ENDPOINT_URL``, which stands for
#: every service: emulators export it, and ``@connections`` is at the API's own host and stage there too.
ENDPOINT_VARIABLE: Final = "AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI"


def redirected_endpoint(environ: Mapping[str, str]) -> str | None:
    """The address that stands for the API's own, if there is one."""
    return environ.get(ENDPOINT_VARIABLE, "").rstrip("/") or None
