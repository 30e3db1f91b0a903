"""What a command says of an error, and the status it ends with: whatever it is, that is no traceback."""

from __future__ import annotations

import errno
import os
import traceback
from typing import Final, NamedTuple

from emissary_lib._version import __version__
from emissary_lib.exceptions import (
    NOTHING_LEFT,
    EmissaryError,
    ReaderGoneError,
    local_resource_error,
)
from emissary_lib.exit_status import Exit, exit_status
from emissary_lib.system import said_by_the_system, socket_error

#: Set to anything, it has the traceback of an error shown.
DEBUG: Final = "EMISSARY_DEBUG"

#: What Python says when the system gave it no thread.
_NO_THREAD: Final = "can't start new thread"


class Failure(NamedTuple):
    """How a command ends that failed.

    Attributes:
        status: Its exit status.
        message: What is said; empty if nobody is there to read it.
    """

    status: Exit
    message: str


def explain(error: BaseException, extra: str | None = None) -> Failure:
    """What to say of an error that ended a command.

    Args:
        error: Any but SystemExit.
        extra: The extra of emissary-lib that brings what the command imports; ``None`` for none.
    """
    match error:
        case KeyboardInterrupt():
            return Failure(Exit.INTERRUPTED, "interrupted")
        case ReaderGoneError():
            return Failure(exit_status(error), "")
        case EmissaryError():
            return Failure(exit_status(error), str(error))
        case ModuleNotFoundError() if extra:
            how = f"pip install 'emissary-lib[{extra}]'"
            return Failure(exit_status(error), f"the package {error.name} is not installed: {how}")
        case ImportError():
            how = "pip install --force-reinstall emissary-lib"
            return Failure(exit_status(error), f"the installation is not whole: {error}; {how}")
        case MemoryError():
            error = socket_error(errno.ENOMEM)
    if (isinstance(error, OSError) and error.errno in NOTHING_LEFT | {errno.EAGAIN}) or (
        isinstance(error, RuntimeError) and _NO_THREAD in str(error)
    ):
        problem = local_resource_error(error)
        return Failure(exit_status(problem), str(problem))
    if isinstance(error, OSError):
        return Failure(Exit.FAILED, _said_by_the_system(error))
    return Failure(Exit.FAULT, _fault(error))


def _said_by_the_system(error: OSError) -> str:
    """The text without Python's number, and with the file."""
    number = error.errno
    said = said_by_the_system(number) if number and number > 0 else error.strerror or str(error)
    return f"{said}: {error.filename}" if error.filename else said


def _fault(error: BaseException) -> str:
    """One line on an error that nobody has foreseen: it is ours, wherever it comes from."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {os.path.basename(frames[-1].filename)}:{frames[-1].lineno}" if frames else ""
    what = " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")
    return (
        f"a fault of emissary {__version__} itself: {what}{where}; "
        f"please report it, with the traceback that {DEBUG}=1 shows"
    )
