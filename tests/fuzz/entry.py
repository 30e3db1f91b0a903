"""One entry: what is checked, from which seeds, and within which work."""

from __future__ import annotations

import itertools
import pathlib
import random
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any, Final

SEEDS: Final = pathlib.Path(__file__).parent / "seeds"

#: Lines of Python that any input may take, however short.
START: Final = 20_000

#: One input of so many has its lines counted, since that takes several times as long.
_COUNTED: Final = 8


class TooMuchWorkError(BaseException):
    """An input took more lines than its length allows. No ``except Exception`` on the way may hold it up."""


@dataclass(frozen=True)
class Entry:
    """A check of any bytes.

    Attributes:
        check: Raises if something that has to hold for all inputs does not hold for this one.
        lines: Lines of Python for each byte of the input, at most. They are counted, so a slow machine
            changes nothing, and an endless loop ends; what a single line makes C do is not seen.
    """

    check: Callable[[bytes], None]
    lines: int = 40

    @property
    def name(self) -> str:
        """As the command line and the folder of seeds have it."""
        return self.check.__name__

    @property
    def seeds(self) -> dict[str, bytes]:
        """Where it begins, by the names of the files."""
        return {path.name: path.read_bytes() for path in sorted((SEEDS / self.name).glob("*"))}

    def run(self, data: bytes) -> None:
        """Check one input, and count for some the lines: for the same ones each time."""
        if zlib.crc32(data) % _COUNTED:
            self.check(data)
        else:
            self.count(data)

    def count(self, data: bytes) -> None:
        """Check one input, and count the lines that it takes.

        Raises:
            TooMuchWorkError: Too many. What ``check`` raises, it raises as well.
        """
        left = most = START + self.lines * len(data)

        def count(_frame: FrameType, event: str, _argument: Any) -> Callable[..., Any]:
            nonlocal left
            left -= event == "line"
            if left < 0:
                raise TooMuchWorkError(f"more than {most} lines for {len(data)} bytes")
            return count

        before = sys.gettrace()
        sys.settrace(count)
        try:
            self.check(data)
        finally:
            sys.settrace(before)


#: Bytes that mean something somewhere: to numbers and lengths, to JSON, hosts, headers and WebSockets.
_TELLING: Final = [bytes([each]) for each in b'\0\x01\x7f\x80\xff"[]{}:,.-+=%@/\\ \r\n0189xe']


def mutations(seeds: list[bytes], chance: random.Random) -> Iterator[bytes]:
    """Inputs like the seeds, without end; the same ones for the same chance."""
    while True:
        data = chance.choice(seeds)
        for _change in range(chance.choice((1, 1, 1, 2, 4))):
            at, to = sorted(chance.randint(0, len(data)) for _edge in range(2))
            match chance.randrange(6):
                case 0:  # a bit flips
                    flipped = bytes(each ^ 1 << chance.randrange(8) for each in data[at : at + 1])
                    data = data[:at] + flipped + data[at + 1 :]
                case 1:  # something telling in the place of a byte, or before it
                    data = data[:at] + chance.choice(_TELLING) + data[at + chance.randrange(2) :]
                case 2:  # a cut
                    data = data[:at] + data[to:]
                case 3:  # chance itself
                    data = data[:at] + chance.randbytes(chance.randint(1, 9)) + data[at:]
                case 4:  # a piece again and again
                    data = data[:to] + data[at:to] * chance.choice((1, 1, 2, 40)) + data[to:]
                case 5:  # the end of another seed
                    other = chance.choice(seeds)
                    data = data[:at] + other[chance.randint(0, len(other)) :]
        yield data[:4096]


def as_text(data: bytes) -> str:
    """Any text: what is no UTF-8 becomes lone surrogates, as in JSON and in headers."""
    return data.decode("utf-8", "surrogateescape")


def pieces(data: bytes, chance: random.Random) -> list[bytes]:
    """The same bytes, cut at a few places."""
    edges = sorted({0, len(data), *(chance.randint(0, len(data)) for _cut in range(chance.randint(0, 8)))})
    return [data[low:high] for low, high in itertools.pairwise(edges)]
