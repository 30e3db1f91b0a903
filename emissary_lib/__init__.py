"""Emissary: reach databases inside a private VPC through API Gateway and Lambda.

    from emissary_lib import Dialer

    sock = Dialer.from_env().dial("db.internal:5432")

Names are loaded when they are first used, so that the functions, which share ``emissary_lib.protocol``, need
neither websocket-client nor a socket to import it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

from emissary_lib._version import __version__

if TYPE_CHECKING:
    from emissary_lib.client.dialer import Dialer as Dialer
    from emissary_lib.client.socket import TunnelSocket as TunnelSocket
    from emissary_lib.exceptions import AuthenticationError as AuthenticationError
    from emissary_lib.exceptions import ConfigError as ConfigError
    from emissary_lib.exceptions import DialError as DialError
    from emissary_lib.exceptions import DialTimeoutError as DialTimeoutError
    from emissary_lib.exceptions import EmissaryError as EmissaryError
    from emissary_lib.exceptions import RelayDeadlineError as RelayDeadlineError
    from emissary_lib.exceptions import TransportError as TransportError
    from emissary_lib.exceptions import TunnelResetError as TunnelResetError
    from emissary_lib.protocol.auth.keys import Key as Key
    from emissary_lib.protocol.targets.allow_list import Target as Target

_HOMES: Final = {
    "AuthenticationError": "emissary_lib.exceptions",
    "ConfigError": "emissary_lib.exceptions",
    "DialError": "emissary_lib.exceptions",
    "DialTimeoutError": "emissary_lib.exceptions",
    "Dialer": "emissary_lib.client.dialer",
    "EmissaryError": "emissary_lib.exceptions",
    "Key": "emissary_lib.protocol.auth.keys",
    "RelayDeadlineError": "emissary_lib.exceptions",
    "Target": "emissary_lib.protocol.targets.allow_list",
    "TransportError": "emissary_lib.exceptions",
    "TunnelResetError": "emissary_lib.exceptions",
    "TunnelSocket": "emissary_lib.client.socket",
}

__all__ = [*sorted(_HOMES), "__version__"]


def __getattr__(name: str) -> Any:
    try:
        home = _HOMES[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return __all__
