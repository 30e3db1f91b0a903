"""What importing the library costs, beside what it cannot do without."""

from __future__ import annotations

import statistics
import subprocess
import sys
from typing import Final

LIBRARY: Final = "from emissary_lib import Dialer"
BARE: Final = "import ssl, socket, websocket"

#: CPU time, since other work on the machine would count in any other.
_TIMED: Final = "import time; at = time.process_time(); {}; print(time.process_time() - at)"


def import_milliseconds(runs: int) -> dict[str, float]:
    """CPU time to import the dialer, and its bare needs, in fresh interpreters in turns.

    Returns:
        The medians ``import_ms`` and ``bare_import_ms``, and ``import_ratio`` of the first to the second.
    """
    library, bare = zip(*((_import(LIBRARY), _import(BARE)) for _ in range(runs)), strict=True)
    ours, needed = statistics.median(library), statistics.median(bare)
    return {
        "import_ms": round(ours, 1),
        "bare_import_ms": round(needed, 1),
        "import_ratio": round(ours / needed, 2),
    }


def _import(statement: str) -> float:
    done = subprocess.run(
        [sys.executable, "-c", _TIMED.format(statement)], capture_output=True, text=True, check=True
    )
    return float(done.stdout) * 1000
