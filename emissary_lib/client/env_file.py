"""``.env`` files: what stands in them, and which lines of ours are wrong.

They belong to other programs too, which have habits of their own. So a line that is none is a fault only if
it is one of ours (``EMISSARY_...``), and only for whoever asks for that name. How values are quoted, escaped
and commented is python-dotenv's to say. Of a value with quotes in its quotes, which it does not take
(``EMISSARY_AUTH_KEYS="[{"kid":1}]"``), the outer pair is taken off here.
"""

from __future__ import annotations

import io
import os
import re
import select
import stat
import time
from collections.abc import Mapping
from typing import Final

from emissary_lib.exceptions import ConfigError
from emissary_lib.protocol.auth.keys import unquote
from emissary_lib.protocol.record import Record, hidden
from emissary_lib.system import OPEN_NO_WAIT

#: Largest file that is read, in bytes.
MAX_SIZE: Final = 1_048_576

#: Seconds that a pipe may take to be filled: its other end may ask somebody for a fingerprint first.
PIPE_TIMEOUT: Final = 30.0

_NEWLINE: Final = re.compile(r"\r\n|\n|\r")

#: The first line that is not blank, and its end.
_LINE: Final = re.compile(r"\s*([^\r\n]*)(?:\r\n|\n|\r)?")

#: A line of ours, whatever its value.
_OURS: Final = re.compile(r"(?:export\s+)?(EMISSARY_\w*)\s*(=?)\s*(.*?)\s*")

#: Seconds between two looks at a pipe that nobody has opened for writing yet.
_LOOK: Final = 0.02


class EnvFile(Record):
    """What a file of settings says.

    Attributes:
        values: What is set, by name.
        faults: What is wrong with a line of ours, by its name.
    """

    values: Mapping[str, str] = hidden()
    faults: Mapping[str, str] = {}


def parse_env(text: str) -> EnvFile:
    """Read ``NAME=value`` lines; nothing is expanded."""
    from dotenv.parser import parse_stream  # only who has such a file has to load it

    values: dict[str, str] = {}
    faults: dict[str, str] = {}
    text = text.replace("\ufeff", "")
    at = 0
    while at < len(text):
        for binding in parse_stream(io.StringIO(text[at:], newline="")):
            if binding.error:
                # A quote that is not closed has taken lines with it: they are read on their own.
                at = _read_odd_line(text, at, values, faults)
                break
            at += len(binding.original.string)
            if binding.key and binding.value is not None:
                values[binding.key] = binding.value
    return EnvFile(values, {name: fault for name, fault in faults.items() if name not in values})


def _read_odd_line(text: str, at: int, values: dict[str, str], faults: dict[str, str]) -> int:
    """Make what can be made of the first line from ``at`` on that is not blank; returns where it ends."""
    line = _LINE.match(text, at)
    assert line, "what is wrong is not blank"
    if ours := _OURS.fullmatch(line[1]):
        name, equals, value = ours.groups()
        if equals and unquote(value) != value:
            values[name] = unquote(value)
        else:
            number = len(_NEWLINE.findall(text, 0, line.start(1))) + 1
            why = "a quote is not closed" if equals else "want NAME=value"
            faults[name] = f"line {number}: {name}: {why}"
    return line.end()


def read_text(path: str | os.PathLike[str], timeout: float = PIPE_TIMEOUT) -> str:
    """The text of a small file, or of a pipe that somebody fills.

    Args:
        path: UTF-8, with or without a mark at its beginning, or UTF-16 with one, as Windows writes it. What
            is neither is replaced: lines of others are theirs.
        timeout: Seconds that a pipe may take.

    Raises:
        ConfigError: It is not there, may not be read, is no file, or is too big; nobody filled the pipe. The
            text does not name the path.

    Blocking: for a pipe, up to ``timeout``. Source: fifo(7).
    """
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise ConfigError("is a directory")
        if stat.S_ISFIFO(mode) and OPEN_NO_WAIT is not None:
            data = _read_pipe(path, OPEN_NO_WAIT, timeout)
        else:
            data = _read_file(path)
    except ValueError as exc:  # a path with a zero byte in it; ConfigError is one as well
        if isinstance(exc, ConfigError):
            raise
        raise ConfigError("is no path") from None
    except OSError as exc:
        raise ConfigError(f"cannot be read: {exc.strerror or exc}") from exc
    if len(data) > MAX_SIZE:
        raise ConfigError(f"has more than {MAX_SIZE} bytes")
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", "replace")
    return data.decode("utf-8-sig", "replace")


def _read_file(path: str | os.PathLike[str]) -> bytes:
    with open(path, "rb") as file:
        return file.read(MAX_SIZE + 1)


def _read_pipe(path: str | os.PathLike[str], no_wait: int, timeout: float) -> bytes:
    until = time.monotonic() + timeout
    descriptor = os.open(path, os.O_RDONLY | no_wait)  # else it waits for a writer, for ever
    try:
        data = bytearray()
        while len(data) <= MAX_SIZE:
            left = until - time.monotonic()
            if left <= 0:
                raise ConfigError(f"is a pipe that nobody has filled within {timeout:g} s")
            if not select.select([descriptor], [], [], left)[0]:
                continue
            try:
                piece = os.read(descriptor, 65_536)
            except BlockingIOError:
                continue
            if not piece and data:
                break
            if not piece:  # some systems say so before there is a writer
                time.sleep(min(_LOOK, left))
            data += piece
        return bytes(data)
    finally:
        os.close(descriptor)
