"""One run: what a program writes, how it ends, and what it meets on the way."""

from __future__ import annotations

import dataclasses
import random
import signal
from typing import Final

from emissary_local.faults import Faults

#: Most that a program writes, in bytes: more than both sides of a session hold.
MOST: Final = 3_000_000

#: What a program does when it has written everything, and the status that comes of it.
ENDS: Final[dict[str, tuple[str, int]]] = {
    "closes": ("sock.close()", 0),
    "half-closes": ("sock.shutdown(socket.SHUT_WR)", 0),
    "just ends": ("", 0),
    "sys.exit(3)": ("sys.exit(3)", 3),
    "os._exit(0)": ("os._exit(0)", 0),
    "os._exit(4)": ("os._exit(4)", 4),
    "SIGKILL": ("os.kill(os.getpid(), signal.SIGKILL)", 128 + signal.SIGKILL),
    "SIGKILL while it writes": ("time.sleep(60)", 128 + signal.SIGKILL),
}

#: What goes wrong, likely enough that a run of seconds meets some of it.
FAULTS: Final[dict[str, Faults]] = {
    "none": Faults(),
    "messages": Faults(reorder=0.2, duplicate=0.1, drop=0.08, delay=0.1),
    "gateway": Faults(
        message_429=0.05, message_500=0.05, connect_429=0.2, connect_500=0.1, connect_lost=0.15
    ),
    "posts": Faults(post_410=0.05, post_429=0.05, post_500=0.05, post_hang=0.01),
    "functions": Faults(
        crash=0.04,
        cold_start=0.3,
        cold_start_seconds=2.0,
        storm_every=3.0,
        duplicate_invoke=0.3,
        invoke_500=0.2,
    ),
    "cuts": Faults(cut_every=0.4, disconnect_missing=0.2, disconnect_late=0.2),
    "silence": Faults(silence_every=1.5, silence_seconds=20.0),
    "database": Faults(lost_write=0.1, database_500=0.05, kept_dead=0.05),
}

#: What the target does with its connection, or what becomes of the dial.
GOOD: Final = ("good", "good", "good", "slow", "late", "resets", "resets late")
NOT_DIALLED: Final = ("refused", "off the list", "wrong key")


@dataclasses.dataclass(frozen=True, slots=True)
class Draw:
    """What was drawn for one run.

    Attributes:
        seed, number: Of all runs, and of this one among them.
        size: Bytes that the program writes.
        end: One of :data:`ENDS`.
        target: One of :data:`GOOD` or :data:`NOT_DIALLED`.
        reset_after: Of a target that resets: bytes that it takes before.
        cold: Whether every function starts cold.
        latency: Of the local cloud.
        faults: One of :data:`FAULTS`.
        sharing: How many connections may share the relay.
    """

    seed: int
    number: int
    size: int
    end: str
    target: str
    reset_after: int
    cold: bool
    latency: str
    faults: str
    sharing: int = 1

    @property
    def kind(self) -> str:
        """Whether connections may share the relay."""
        return "shared" if self.sharing > 1 else "own"

    @property
    def written(self) -> bytes:
        """What the program writes."""
        return (bytes(range(251)) * (self.size // 251 + 1))[: self.size]

    @property
    def last(self) -> str:
        """What the program does last, in Python."""
        return ENDS[self.end][0]

    @property
    def status(self) -> int:
        """The program's own status, if nothing keeps it from writing."""
        return ENDS[self.end][1]

    @property
    def settings(self) -> Faults:
        """The faults, with a seed of this run's own."""
        return dataclasses.replace(FAULTS[self.faults], seed=self.seed * 100_003 + self.number)

    def __str__(self) -> str:
        return (
            f"run {self.number}: {self.size} bytes, {self.end}; target {self.target}"
            f"{f' after {self.reset_after}' if self.target.startswith('resets') else ''}; "
            f"{'cold' if self.cold else 'warm'}, latency {self.latency}, faults {self.faults}, "
            f"relay {self.kind}"
        )


def draw(seed: int, number: int) -> Draw:
    """What run ``number`` of those with ``seed`` does."""
    chance = random.Random(f"{seed}/{number}")
    size = chance.choice(
        [0, 1, chance.randrange(1_000), chance.randrange(100_000), chance.randrange(MOST), MOST]
    )
    return Draw(
        seed,
        number,
        size,
        chance.choice(list(ENDS)),
        chance.choice(GOOD) if chance.random() < 0.8 else chance.choice(NOT_DIALLED),
        chance.randrange(size + 1),
        chance.random() < 0.5,
        chance.choice(["none", "aws"]),
        "none" if chance.random() < 0.4 else chance.choice(list(FAULTS)[1:]),
        chance.choice([1, 32]),
    )
