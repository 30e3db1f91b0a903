"""What ``emissary forward`` says while it runs: events for programs, a live line for people, or nothing."""

from __future__ import annotations

import contextlib
import json
import math
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, TextIO

from emissary_lib.cli.dialling import Line, format_address
from emissary_lib.cli.dials import LiveLine
from emissary_lib.client.forward import Forward, Forwarded, ForwardedAddress, Happening
from emissary_lib.exceptions import OutputError
from emissary_lib.protocol.targets.allow_list import Target

#: Seconds between two looks at what the live line should say.
_INTERVAL: Final = 1.0

#: Seconds left of a session from which on each of them counts.
_SOON: Final = 60


class Report:
    """Says where the command listens, and no more.

    Args:
        out: Where; ``None`` for a standard output that was closed.
    """

    def __init__(self, out: TextIO | None) -> None:
        self._out = out

    def watch(self, target: Target | None, forward: Forward) -> None:
        """Hear of a forward's connections from now on."""

    def ready(self, listening: Sequence[tuple[Target | None, ForwardedAddress]]) -> None:
        """All addresses are listened on."""
        for target, address in listening:
            where = address.path or " and ".join(format_address(each) for each in address.every)
            if target is None:
                where += " (SOCKS5)"
            leads = target or "every target on the allow-list"
            line = f"Listening on {where}, which leads to {leads}. Ctrl-C ends it."
            print(line, file=self._out, flush=True)

    @property
    def line(self) -> Line | None:
        """What keeps the terminal's last line, if this does."""
        return None

    def end(self) -> None:
        """The command ends."""


class JsonEvents(Report):
    """One line of JSON for each event, ``ready`` of each target first.

    Connections are counted over all forwards: two forwards may have the same target.

    Args:
        out: Where; ``None`` for a standard output that was closed.
    """

    def __init__(self, out: TextIO | None) -> None:
        super().__init__(out)
        self._lock = threading.Lock()
        self._early: list[Mapping[str, object]] | None = []  # of connections that are quicker than we
        self._numbers: weakref.WeakKeyDictionary[Forwarded, int] = weakref.WeakKeyDictionary()
        self._counted = 0

    def watch(self, target: Target | None, forward: Forward) -> None:
        """Tell of a forward's connections from now on."""

        def tell(happening: Happening, connection: Forwarded) -> None:
            event: dict[str, object] = {
                "event": happening.value,
                "target": str(target or connection.connection.target) or None,
            }
            with self._lock:
                event |= {"connection": self._number(connection), **_details(happening, connection)}
                if self._early is None:
                    # Whoever read it has gone, or there is no room: the connections are no worse for that.
                    with contextlib.suppress(OutputError):
                        self._print(event)
                else:
                    self._early.append(event)

        forward.on_happening = tell

    def _number(self, connection: Forwarded) -> int:
        if connection not in self._numbers:
            self._counted += 1
            self._numbers[connection] = self._counted
        return self._numbers[connection]

    def ready(self, listening: Sequence[tuple[Target | None, ForwardedAddress]]) -> None:
        """Tell where each target is to be found."""
        with self._lock:
            for target, address in listening:
                host, port = address
                event = {"event": "ready", "host": host, "port": port, "target": target and str(target)}
                path = {"path": address.path} if address.path else {}
                self._print({**event, "pid": os.getpid(), **path})
            for early in self._early or ():
                self._print(early)
            self._early = None

    def _print(self, event: Mapping[str, object]) -> None:
        print(json.dumps(event), file=self._out, flush=True)


def _details(happening: Happening, connection: Forwarded) -> dict[str, object]:
    found: dict[str, object] = {}
    session = connection.session
    if connection.error and happening is Happening.FAILED:
        found |= {"error": type(connection.error).__name__, "message": str(connection.error)}
    if session is None:
        return found
    if happening in (Happening.OPENED, Happening.GOING_AWAY):
        ends = {} if session.expires_at == math.inf else {"expires_at": round(session.expires_at)}
        return {"session": session.id, **ends}
    sent, received = session.transferred
    return found | {"sent": sent, "received": received}


class StatusLine(Report):
    """A line at the bottom of a terminal that is kept up to date.

    It is written anew over itself, with no escape sequence and no colour.

    Args:
        out: The terminal.
        columns: Gives its width; ``None`` to ask the terminal.
        clock: Seconds since 1970.
    """

    def __init__(
        self,
        out: TextIO,
        columns: Callable[[], int] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(out)
        self._line = LiveLine(out, columns)
        self._clock = clock
        self._since = clock()
        self._lock = threading.RLock()
        self._open: dict[Forwarded, None] = {}
        self._accepted = 0
        self._before = [0, 0]  # bytes of connections that have ended
        self._dial: tuple[str, ...] = ("",)  # what one waits for, in words that are ever shorter
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def watch(self, target: Target | None, forward: Forward) -> None:
        """Count a forward's connections from now on."""
        forward.on_happening = self._note

    def ready(self, listening: Sequence[tuple[Target | None, ForwardedAddress]]) -> None:
        """Say where, and keep the line from now on."""
        super().ready(listening)
        self._thread = threading.Thread(target=self._keep, name="emissary-live-line", daemon=True)
        self._thread.start()

    @property
    def line(self) -> Line:
        """This one: what a dial waits for stands behind the rest."""
        return self

    @property
    def usable(self) -> bool:
        """As of :class:`LiveLine`."""
        return self._line.usable

    def show(self, *texts: str) -> None:
        """Show what a dial waits for, behind the rest."""
        self._dial = tuple(text.removeprefix("emissary: ") for text in texts)
        if self._thread:
            self._draw()

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """For others to write to the terminal under: the line makes room."""
        with contextlib.suppress(OutputError), self._line.aside():
            yield

    def end(self) -> None:
        """Take the line away."""
        self._ended.set()
        if self._thread:
            self._thread.join()
        with contextlib.suppress(OutputError):
            self._line.show("")

    def text(self) -> str:
        """What the line says now, of connections, where there is room."""
        return "; ".join(self._parts())

    def texts(self) -> list[str]:
        """What the line says now, without ever more of what can be missed most easily."""
        count, moved, since, *left = self._parts()
        rest = [[count, moved, since, *left], [count, moved, *left], [count, *left], [count]]
        dial = self._dial
        steps = [(0, 0), (1, 0), (1, 1), (2, 1), (2, 2), (3, 2)]
        return [
            "; ".join(filter(None, [*rest[few], dial[min(short, len(dial) - 1)]])) for few, short in steps
        ]

    def _parts(self) -> list[str]:
        with self._lock:
            sessions = [each.session for each in self._open if each.session]
            sent, received = self._before
            for session in sessions:
                sent, received = sent + session.transferred[0], received + session.transferred[1]
            since = time.strftime("%H:%M:%S", time.localtime(self._since))
            parts = [
                f"{len(self._open)} open, {self._accepted} in all",
                f"{format_bytes(sent)} sent, {format_bytes(received)} received",
                f"since {since}",
            ]
            first = min((session.expires_at for session in sessions), default=math.inf)
            if first < math.inf:
                left = max(0.0, first - self._clock())
                parts.append(f"{format_left(left)} left")
            return parts

    def _note(self, happening: Happening, connection: Forwarded) -> None:
        with self._lock:
            if happening is Happening.OPENED:
                self._open[connection] = None
            if happening.ends and connection in self._open:
                del self._open[connection]
                assert connection.session
                for way, count in enumerate(connection.session.transferred):
                    self._before[way] += count
            if happening is Happening.OPENED or (happening.ends and connection.session is None):
                self._accepted += 1

    def _keep(self) -> None:
        self._draw()
        while not self._ended.wait(_INTERVAL):
            self._draw()

    def _draw(self) -> None:
        try:
            self._line.show(*self.texts())
        except OutputError:  # the terminal is gone: the connections are no worse for that
            self._ended.set()


def choose(out: TextIO | None, *, json_events: bool, environ: Mapping[str, str]) -> Report:
    """The report that suits whoever reads it: nothing moves in a pipe, or on a terminal that cannot."""
    if json_events:
        return JsonEvents(out)
    if out is not None and out.isatty() and environ.get("TERM") != "dumb":
        return StatusLine(out)
    return Report(out)


def format_bytes(count: int) -> str:
    """As people read it: ``12.3 kB``."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"


def format_left(seconds: float) -> str:
    """Minutes, and in the last one seconds."""
    return f"{int(seconds // 60)} min" if seconds >= _SOON else f"{int(seconds)} s"
