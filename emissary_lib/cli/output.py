"""Standard output and standard error of a command: what cannot be written is no traceback; colours."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Final, TextIO, cast

#: Colours of a terminal, as SGR parameters (ECMA-48 section 8.3.117).
GREEN: Final = 32
YELLOW: Final = 33
RED: Final = 31


@contextlib.contextmanager
def checked_output() -> Iterator[None]:
    """Have ``sys.stdout`` raise OutputError for what cannot be written while the context lasts; flushes it.

    Characters that the terminal's encoding lacks are written as escapes, as on standard error.

    Raises:
        OutputError: At the latest at the end: there is no room.
        ReaderGoneError: Whoever read it has gone.
    """
    stream: TextIO | None = sys.stdout
    if stream is None:  # closed by whoever started us
        yield
        return
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")
    checked = _Checked(stream)
    with contextlib.redirect_stdout(cast(TextIO, checked)):
        try:
            yield
        finally:
            if not checked.failed:
                checked.flush()


def standard_output() -> TextIO:
    """Standard output, for a command that does all its work to write there.

    Raises:
        OutputError: Whoever started us has closed it.
    """
    stream: TextIO | None = sys.stdout
    if stream is None:
        from emissary_lib.exceptions import OutputError  # loads what --help can do without

        raise OutputError("cannot write to standard output: it is closed; give the command one")
    return stream


def complain(message: object) -> None:
    """Write one message of the command to standard error; never raises OSError."""
    stream: TextIO | None = sys.stderr
    if stream is None:  # print would take standard output for it
        return
    try:
        print(f"emissary: {message}", file=stream, flush=True)
    except OSError:
        _discard(stream)


def in_colour(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether to write colours to a stream, by the rules that Python's own programs have.

    Args:
        stream: Where they would be written.
        environ: ``NO_COLOR`` forbids them, ``FORCE_COLOR`` wants them, if they are not empty; ``TERM=dumb``
            cannot show them. Else a terminal has them.
    """
    if environ.get("NO_COLOR"):
        return False
    if environ.get("FORCE_COLOR"):
        return True
    return environ.get("TERM") != "dumb" and stream.isatty()


def paint(text: str, colour: int) -> str:
    """The text in one of the colours above."""
    return f"\x1b[{colour}m{text}\x1b[0m"


class _Checked:
    """A text stream whose failures are ours."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.failed = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._translating():
            return self._stream.write(text)

    def flush(self) -> None:
        with self._translating():
            self._stream.flush()

    @contextlib.contextmanager
    def _translating(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            self.failed = True
            _discard(self._stream)
            # Here, because it loads what --help can do without.
            from emissary_lib.exceptions import OutputError, ReaderGoneError

            kind = ReaderGoneError if isinstance(exc, BrokenPipeError) else OutputError
            raise kind(
                f"cannot write to standard output: {exc.strerror or exc}; make room, or send it elsewhere"
            ) from exc


def _discard(stream: TextIO) -> None:
    """Let what is left in the buffer go nowhere: the interpreter would complain of it at its end."""
    with contextlib.suppress(OSError, ValueError):  # ValueError: a stream without a descriptor
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, stream.fileno())
        finally:
            os.close(nowhere)
