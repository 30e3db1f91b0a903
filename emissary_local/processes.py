"""What the local cloud needs of the machine it starts on, and how its processes end together."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import signal
import sys
from typing import Final

from emissary_local.errors import LocalCloudError

#: Modules of the ``local`` extra that the local cloud cannot start without.
REQUIRED_MODULES: Final = (
    "aiohttp",
    "awslambdaric",
    "boto3",
    "cryptography",
    "moto",
    "samtranslator",
    "websockets",
    "yaml",
)

_PR_SET_PDEATHSIG: Final = 1


def check_requirements(platform: str = sys.platform, modules: tuple[str, ...] = REQUIRED_MODULES) -> None:
    """Check the operating system and the installed packages.

    Raises:
        LocalCloudError: If this is not Linux, or a package is missing; names it.
    """
    if platform != "linux":
        raise LocalCloudError(
            f"the local cloud runs on Linux only, not on {platform}: AWS's Lambda runtime client does too. "
            "Use a container or a virtual machine"
        )
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise LocalCloudError(
            f"the local cloud needs {', '.join(missing)}; install it with: pip install 'emissary-lib[local]'"
        )


def die_with_parent() -> None:
    """Have the kernel kill this process when the thread that started it ends (prctl(2)).

    Only for children started by the one thread of a process of ours. The cloud process itself must not
    use it: its user may start it from a thread that ends earlier. It watches a pipe instead.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() == 1:
        os._exit(1)  # the parent ended before the call
