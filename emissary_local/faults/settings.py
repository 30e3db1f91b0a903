"""The table of faults: one row for each kind, all off unless asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final

from emissary_local.errors import SettingsError

#: Whose connection is cut. ``both``: the dialer's and the relay's of one session, at the same moment.
SIDES: Final = ("dialer", "relay", "both")

#: How a connection is cut: a close frame with 1001; a TCP reset; the end of the TCP stream in the middle of a
#: frame; or silence: the TCP connection stays, and nothing is read from it or written to it any more.
HOWS: Final = ("close", "reset", "mid-frame", "silent")

#: Largest ``skew_spread``, in seconds. Signatures are accepted within five minutes of the cloud's clock
#: (AWS General Reference, "Elements of an AWS API request signature"), and no more than half of that is used
#: up.
MAX_SPREAD: Final = 150.0


def _share() -> Any:
    return field(default=0.0, metadata={"unit": "share"})


def _every() -> Any:
    return field(default=0.0, metadata={"unit": "seconds"})


def _seconds(default: float = 0.0) -> Any:
    return field(default=default, metadata={"unit": "seconds"})


@dataclass(frozen=True, slots=True)
class Faults:
    """Which faults to inject, and how often.

    Three units. A *share* is the probability, 0 to 1, that it happens to one message or call. A name that
    ends in ``_every`` is the mean time between two, in seconds, drawn from an exponential distribution; 0 is
    never. A name that ends in ``_seconds`` says how long. Times are real ones, not scaled, but for
    ``silence_seconds``.

    A share is counted under its name; the rates as ``storm``, ``silence``, and cuts by how: ``cut_close``,
    ``cut_reset``, ``cut_mid_frame``, one for each connection.

    Attributes:
        seed: Where all decisions come from.

        reorder: Share of messages, either way, that later ones of the same connection overtake. It is held
            until one to ``MAX_OVERTAKERS`` have passed, or for ``HOLD_SECONDS``.
        duplicate: Share of messages, either way, that arrive twice, the second time up to 0.2 s later.
        drop: Share of messages, either way, that vanish: a post was answered 200 all the same.
        delay: Share of messages, either way, that take up to ``delay_seconds`` longer.
        delay_seconds: The longest delay.

        message_429: Share of messages whose function is throttled: the client gets an error frame.
        message_500: Share of messages that the gateway fails to hand on: an error frame too.
        long_lost: Share of messages of more than one frame (``Limits.frame_bytes``), either way, that vanish:
            a post was answered 200 all the same.
        long_refused: Share of messages of more than one frame that are refused: a client's connection is
            closed with 1009, a post is answered 413.
        close_1008: Share of clients' messages at which their connection is closed as throttled.
        close_1011: The same, as an internal error.
        close_1012: The same, as a restart of the service.
        connect_403: Share of upgrades refused with the gateway's own 403 before the function ran.
        connect_429: Share of upgrades refused with 429 before the function ran.
        connect_500: Share of upgrades refused with 502 before the function ran.
        connect_lost: Share of accepted upgrades whose 101 is lost: ``$connect`` ran, the client is reset.
        disconnect_missing: Share of ``$disconnect`` events that never come.
        disconnect_late: Share of ``$disconnect`` events that come up to ``disconnect_seconds`` late.
        disconnect_seconds: The latest.

        post_410: Share of posts answered 410 though the connection is there; half of them are delivered.
        post_429: Share of posts refused with 429; none is delivered.
        post_500: Share of posts answered 500; half of them are delivered.
        post_hang: Share of posts that are not answered for ``hang_seconds``; half of them are delivered.
        hang_seconds: Longer than any caller waits.

        crash: Share of invocations whose process dies: before the work, in it (within ``crash_seconds``), or
            after it, when nobody has heard of it yet; a third each.
        crash_seconds: How far into an invocation the second kind dies at most.
        invoke_hang: Share of invocations that hang until their timeout kills them, half of them with the
            work done.
        cold_start: Share of invocations that find no warm environment and start a new one.
        cold_start_seconds: How much longer than here a cold start takes, at most; for those of
            ``cold_start``.
        storm_every: Mean time between storms: every idle environment is gone at once, so that all start
            cold.
        duplicate_invoke: Share of asynchronous invocations that run twice.
        duplicate_invoke_seconds: How much later the second one starts, at most.
        invoke_429: Share of calls of Lambda's Invoke refused with 429.
        invoke_500: Share of calls of Lambda's Invoke answered 500; half of them took effect.
        functions: Logical ids of the functions to which ``crash``, ``invoke_hang``, ``cold_start``,
            ``storm_every`` and ``duplicate_invoke`` happen; empty: all.

        lost_write: Share of DynamoDB writes that are done, but the answer is lost: half of them get a 500,
            half a reset connection. The SDK then tries again.
        stale_read: Share of single reads that are not consistent and give the item as it was before its last
            write, if that is at most ``stale_seconds`` ago. Consistent ones are never stale, nor is the first
            such read of an item.
        stale_seconds: How long the old state is seen.
        database_500: Share of DynamoDB calls that fail with 500, with nothing done.
        kept_dead: Share of freezes that an environment's kept HTTP connections (``@connections``, DynamoDB,
            Lambda) do not survive: half are closed, half swallow what is sent to them and never answer.
            Counted for each connection.

        cut_every: Mean time between cuts of WebSocket connections.
        cut_sides: Which sides ``cut_every`` and ``silence_every`` choose from.
        cut_hows: How ``cut_every`` cuts: ``close``, ``reset``, ``mid-frame``.
        silence_every: Mean time between silent deaths. Posts to a silent connection are still answered 200.
        silence_seconds: After how long the gateway notices and sends ``$disconnect`` with 1006; times the
            time scale, as it stands for a limit of AWS.

        skew_seconds: How far the cloud's clock is ahead of this machine's: the functions' own (``time``,
            ``datetime``), the events' ``requestTimeEpoch``, ``Date`` headers, and where signatures are
            checked.
        skew_spread: Each execution environment is off by up to this much more, either way, at most
            ``MAX_SPREAD``.

    Raises:
        SettingsError: If a value is out of range; the text names it.
    """

    seed: int = 0
    # Messages, either way.
    reorder: float = _share()
    duplicate: float = _share()
    drop: float = _share()
    delay: float = _share()
    delay_seconds: float = _seconds(0.5)
    # The gateway and its routes.
    message_429: float = _share()
    message_500: float = _share()
    long_lost: float = _share()
    long_refused: float = _share()
    close_1008: float = _share()
    close_1011: float = _share()
    close_1012: float = _share()
    connect_403: float = _share()
    connect_429: float = _share()
    connect_500: float = _share()
    connect_lost: float = _share()
    disconnect_missing: float = _share()
    disconnect_late: float = _share()
    disconnect_seconds: float = _seconds(5.0)
    # Posts to @connections.
    post_410: float = _share()
    post_429: float = _share()
    post_500: float = _share()
    post_hang: float = _share()
    hang_seconds: float = _seconds(60.0)
    # Functions.
    crash: float = _share()
    crash_seconds: float = _seconds(0.05)
    invoke_hang: float = _share()
    cold_start: float = _share()
    cold_start_seconds: float = _seconds(0.5)
    storm_every: float = _every()
    duplicate_invoke: float = _share()
    duplicate_invoke_seconds: float = _seconds(1.0)
    invoke_429: float = _share()
    invoke_500: float = _share()
    functions: tuple[str, ...] = ()
    # The database, and kept connections.
    lost_write: float = _share()
    stale_read: float = _share()
    stale_seconds: float = _seconds(1.0)
    database_500: float = _share()
    kept_dead: float = _share()
    # Cuts.
    cut_every: float = _every()
    cut_sides: tuple[str, ...] = SIDES
    cut_hows: tuple[str, ...] = HOWS[:3]
    silence_every: float = _every()
    silence_seconds: float = _seconds(600.0)
    # Clocks.
    skew_seconds: float = 0.0
    skew_spread: float = _seconds()

    def __post_init__(self) -> None:
        for name in ("functions", "cut_sides", "cut_hows"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for each in fields(self):
            value, unit = getattr(self, each.name), each.metadata.get("unit")
            if unit == "share" and not 0.0 <= value <= 1.0:
                raise SettingsError(
                    f"Faults.{each.name} is a probability and must be from 0 to 1, not {value}"
                )
            if unit == "seconds" and not 0.0 <= value < float("inf"):
                raise SettingsError(f"Faults.{each.name} is a time in seconds, 0 or more, not {value}")
        _check_names("cut_sides", self.cut_sides, SIDES)
        _check_names("cut_hows", self.cut_hows, HOWS[:3])
        if self.skew_spread > MAX_SPREAD:
            raise SettingsError(
                f"Faults.skew_spread must be at most {MAX_SPREAD:.0f} s, not {self.skew_spread}"
            )

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Faults:
        """The faults that ``dataclasses.asdict`` and a way through JSON have made ``values`` of.

        Raises:
            SettingsError: If there is no such fault, or a value is out of range.
        """
        unknown = set(values) - {each.name for each in fields(cls)}
        if unknown:
            raise SettingsError(f"there is no fault named {', '.join(sorted(unknown))}")
        return cls(**values)


#: Names of the faults that may happen to one message or call.
SHARES: Final = tuple(each.name for each in fields(Faults) if each.metadata.get("unit") == "share")


def _check_names(name: str, given: tuple[str, ...], known: tuple[str, ...]) -> None:
    if not given or not set(given) <= set(known):
        raise SettingsError(f"Faults.{name} must name some of {', '.join(known)}, not {given!r}")
