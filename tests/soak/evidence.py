"""What the functions' logs tell of a soak: which relays died, which returned, and how they left."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

#: Logical ids of the functions whose deaths count.
FUNCTIONS: Final = ("ConnectFunction", "DefaultFunction", "DisconnectFunction", "RelayFunction")

#: RFC 6455 section 7.4.1: closed by the client itself, in good order.
_NORMAL: Final = 1000

#: What Lambda writes into a function's log when an invocation's process has died or been killed.
_DEATH: Final = re.compile(r"Runtime exited with error: signal|Task timed out after")


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the functions' logs say.

    Attributes:
        begun: Sessions that a relay has claimed.
        returned: Sessions whose relay has returned, and with which code.
        gave_up: Sessions of which a relay was not let in.
        left: The epoch in which a session's relay itself closed its WebSocket, while the session was open.
        deaths: Invocations that died or were killed, by function.
        connected: Connections of a shared session that its relay has opened, and those of them that are over.
        recorded: How many connections a shared session had by its audit record, if its relay has told it.
    """

    begun: frozenset[str] = frozenset()
    returned: Mapping[str, str] = field(default_factory=dict)
    gave_up: frozenset[str] = frozenset()
    left: Mapping[str, int] = field(default_factory=dict)
    deaths: Mapping[str, int] = field(default_factory=dict)
    connected: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    recorded: Mapping[str, int] = field(default_factory=dict)

    @property
    def killed(self) -> frozenset[str]:
        """Sessions whose relay claimed and never returned as it should."""
        return self.begun - set(self.returned)


def read(logs: Mapping[str, str]) -> Evidence:
    """Read the logs, by function."""
    relay = list(_lines(logs.get("RelayFunction", "")))
    everything = [line for text in logs.values() for line in _lines(text)]
    connected, ended = (
        Counter(line["session"] for line in _of(relay, message))
        for message in ("connected", "connection ended")
    )
    records = [
        line
        for line in _of(everything, "session ended")
        if line.get("reported_by") == "relay" and line.get("connections") is not None
    ]
    left = [line for line in _of(everything, "connection gone") if line.get("close_code") == _NORMAL]
    return Evidence(
        begun=frozenset(line["session"] for line in _of(everything, "claimed", "relay claimed")),
        returned={line["session"]: str(line["code"]) for line in _of(relay, "session ended")},
        gave_up=frozenset(line["session"] for line in _of(relay, "could not dial back")),
        left={line["session"]: int(line["epoch"]) for line in left if line["role"] == "relay"},
        deaths=Counter({name: len(_DEATH.findall(text)) for name, text in logs.items()}),
        connected={session: (count, ended[session]) for session, count in connected.items()},
        recorded={line["session"]: int(line["connections"]) for line in records},
    )


def _lines(text: str) -> Iterator[dict[str, Any]]:
    for line in text.splitlines():
        if line.startswith("{"):
            try:
                yield json.loads(line)
            except ValueError:  # its writer was killed in the middle of it
                continue


def _of(lines: Iterable[dict[str, Any]], *messages: str) -> Iterator[dict[str, Any]]:
    return (line for line in lines if line.get("message") in messages and "session" in line)
