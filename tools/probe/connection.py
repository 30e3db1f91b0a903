"""WebSockets to the probe's stack: single frames out, and whatever comes back, the end included."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import websocket
from websocket import ABNF

from emissary_lib.exceptions import EmissaryError
from emissary_lib.protocol.wire.text import clean, decode_clean

SUBPROTOCOL: Final = "emissary.probe"

#: Bytes of one metered unit of a message (API Gateway pricing, "WebSocket APIs").
UNIT: Final = 32 * 1024

#: Ids in the gateway's own messages: of no use to anybody else.
_IDS: Final = re.compile(r'("(?:connectionId|requestId)": ?)"[^"]*"')


class ProbeError(EmissaryError):
    """The stack did not do what an experiment needs."""


class UpgradeRefusedError(ProbeError):
    """The answer to an upgrade was not 101; ``status`` is what it was."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the upgrade was answered with status {status}")
        self.status = status


@dataclass(frozen=True, slots=True)
class Event:
    """What came next on a connection.

    Attributes:
        kind: ``text``, ``binary``, ``closed`` (by a close frame), ``lost`` (without one), or ``silence``.
        data: The message.
        code: Of a close frame; 1005 if it has none.
        reason: Of a close frame, or how the connection was lost.
        frames: How many frames the message came in.
    """

    kind: str
    data: bytes = field(default=b"", repr=False)
    code: int | None = None
    reason: str = ""
    frames: int = 0

    @property
    def over(self) -> bool:
        """Whether the connection has ended."""
        return self.kind in ("closed", "lost")

    def __str__(self) -> str:
        if self.kind == "closed":
            return f"closed {self.code}" + (f" {self.reason!r}" if self.reason else "")
        if self.kind == "lost":
            return f"lost: {self.reason}"
        return f"{self.kind}: {self.text}" if self.data else self.kind

    @property
    def text(self) -> str:
        """The beginning of the message, fit to show, without ids."""
        return _IDS.sub(r'\1"..."', decode_clean(self.data, 300))

    @property
    def answer(self) -> dict[str, Any] | None:
        """The function's answer, if the message is one."""
        if not self.data.startswith(b'{"answer"'):
            return None
        found: dict[str, Any] = json.loads(self.data)
        return found


@dataclass(slots=True)
class Tally:
    """What the client has sent and received, for the bill.

    Attributes:
        connects, refused: Upgrades that were let in, and that were not.
        units_in, units_out: Messages from and to the client, in steps of 32 KB.
        bytes_out: Bytes of the messages to the client.
        throttled: Units among them that may not be metered: messages that were not let through, and the error
            frames that said so.
    """

    connects: int = 0
    refused: int = 0
    units_in: int = 0
    units_out: int = 0
    bytes_out: int = 0
    throttled: int = 0

    def sent(self, size: int) -> None:
        """Count a message of so many bytes from the client."""
        self.units_in += max(1, -(-size // UNIT))

    def received(self, size: int) -> None:
        """Count one to the client."""
        self.units_out += max(1, -(-size // UNIT))
        self.bytes_out += size


class Connection:
    """One WebSocket. A context manager: it is closed at the end of the block.

    Args:
        url: Of the stage, with a query string if one is wanted.
        tally: Counts.
        patience: Longest wait for the upgrade, and for an answer, in seconds.
        receive_buffer: Of the kernel, in bytes; its own choice if None.

    Raises:
        UpgradeRefusedError: The gateway or ``$connect`` said no.
        ProbeError: Nobody answered.
    """

    _ids: Iterator[int] = itertools.count(1)

    def __init__(self, url: str, tally: Tally, *, patience: float, receive_buffer: int | None = None) -> None:
        self._tally = tally
        self._patience = patience
        self._parts: list[bytes] = []
        self._kind = "text"
        options = [] if receive_buffer is None else [(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)]
        try:
            self._ws = websocket.create_connection(
                url, timeout=patience, subprotocols=[SUBPROTOCOL], sockopt=options, skip_utf8_validation=True
            )
        except websocket.WebSocketBadStatusException as exc:
            tally.refused += 1
            raise UpgradeRefusedError(int(exc.status_code)) from exc
        except (websocket.WebSocketException, OSError, ValueError) as exc:
            raise ProbeError(f"no WebSocket to {url}: {clean(str(exc)) or type(exc).__name__}") from exc
        tally.connects += 1

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_exc: object) -> None:
        with contextlib.suppress(websocket.WebSocketException, OSError):
            self._ws.close(timeout=1)
        self._ws.shutdown()  # type: ignore[no-untyped-call]

    def send(self, data: bytes, *, frame: int | None = None, opcode: int = ABNF.OPCODE_TEXT) -> None:
        """Send a message in frames of ``frame`` bytes; if that fails, :meth:`receive` tells."""
        step = frame or max(1, len(data))
        starts = range(0, max(1, len(data)), step)
        with contextlib.suppress(websocket.WebSocketException, OSError):
            for start in starts:
                kind = opcode if start == 0 else ABNF.OPCODE_CONT
                last = int(start == starts[-1])
                self._ws.send_frame(ABNF(last, 0, 0, 0, kind, 1, data[start : start + step]))
            self._tally.sent(len(data))

    def ping(self) -> None:
        """Send a ping frame; if that fails, :meth:`receive` tells."""
        with contextlib.suppress(websocket.WebSocketException, OSError):
            self._ws.ping()

    def receive(self, seconds: float | None = None) -> Event:
        """What comes within ``seconds``, the patience if None; pings are answered, and do not count."""
        deadline = time.monotonic() + (self._patience if seconds is None else seconds)
        while True:
            self._ws.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                frame = self._ws.recv_frame()  # type: ignore[no-untyped-call]
            except websocket.WebSocketTimeoutException:
                return Event("silence")
            except (websocket.WebSocketException, OSError) as exc:
                return Event("lost", reason=clean(str(exc)) or type(exc).__name__)
            if frame is not None and (event := self._take(frame)) is not None:
                return event
            if time.monotonic() > deadline:
                return Event("silence")

    def _take(self, frame: ABNF) -> Event | None:
        """The event that a frame completes, if any."""
        data = frame.data.encode() if isinstance(frame.data, str) else bytes(frame.data)
        if frame.opcode == ABNF.OPCODE_CLOSE:
            # Answered before it is told of; the gateway may be gone already.
            with contextlib.suppress(websocket.WebSocketException, OSError):
                self._ws.send_close()
            code = int.from_bytes(data[:2], "big") if len(data) >= 2 else 1005
            return Event("closed", code=code, reason=decode_clean(data[2:]))
        if frame.opcode == ABNF.OPCODE_PING:
            with contextlib.suppress(websocket.WebSocketException, OSError):
                self._ws.pong(data)
        if frame.opcode in (ABNF.OPCODE_PING, ABNF.OPCODE_PONG):
            return None
        if not self._parts:
            self._kind = "binary" if frame.opcode == ABNF.OPCODE_BINARY else "text"
        self._parts.append(data)
        if not frame.fin:
            return None
        parts, self._parts = self._parts, []
        whole = b"".join(parts)
        self._tally.received(len(whole))
        return Event(self._kind, whole, frames=len(parts))

    def ask(self, op: str, **fields: Any) -> int:
        """Have the function do something; the answer will have the number that this returns."""
        number = next(self._ids)
        self.send(json.dumps({"op": op, "id": number, **fields}).encode())
        return number

    def answer_to(
        self, number: int, *, seconds: float | None = None, others: Callable[[Event], object] | None = None
    ) -> dict[str, Any]:
        """Wait for one answer.

        Args:
            number: What :meth:`ask` returned.
            seconds: Longest wait for each message.
            others: Gets what comes before; without it, what is no answer means that there will be none.

        Raises:
            ProbeError: Something else came, or nothing.
        """
        while True:
            event = self.receive(seconds)
            answer = event.answer
            if answer is not None and answer["id"] == number:
                return answer
            if event.over or event.kind == "silence" or others is None:
                raise ProbeError(f"instead of an answer: {event}")
            others(event)

    def call(self, op: str, **fields: Any) -> Mapping[str, Any]:
        """:meth:`ask`, and the answer.

        Raises:
            ProbeError: There was none.
        """
        return self.answer_to(self.ask(op, **fields))
