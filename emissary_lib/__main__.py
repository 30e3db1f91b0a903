"""The way into the ``emissary`` command, which ``python -m emissary_lib`` is as well."""

from __future__ import annotations

import signal
import sys


def main() -> int:
    """Run the command with the arguments of this process; returns the exit status.

    Ctrl-C ends the process in silence while the command is being loaded, and once it is over: nobody could
    catch it there.

    Raises:
        SystemExit: As :func:`emissary_lib.cli.main.main`.
    """
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # else it is ignored, as by nohup
    if ours:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from emissary_lib.cli.main import main as run

    if ours:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return run()
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    sys.exit(main())
