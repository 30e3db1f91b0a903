"""What is done to the stack for each question: I/O alone. Each returns what it found, fit for JSON.

What they found :mod:`tools.probe.verdicts` judges.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import socket
import statistics
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Final
from urllib.parse import urlsplit

from websocket import ABNF

from emissary_lib.protocol.constants import MAX_FRAGMENT, MAX_MESSAGE
from tools.probe.account import Account
from tools.probe.connection import Connection, Event, ProbeError, UpgradeRefusedError
from tools.probe.probe import Probe
from tools.probe.verdict import Findings

#: Length and frames of the messages that are sent in: what Emissary sends, then both readings of each edge.
LENGTHS_IN: Final = (
    (MAX_FRAGMENT, MAX_FRAGMENT),
    (32_768, 32_768),
    (32_769, 32_769),
    (2 * MAX_FRAGMENT, MAX_FRAGMENT),
    (MAX_MESSAGE, MAX_FRAGMENT),
    (128_000, MAX_FRAGMENT),
    (131_072, 32_768),
    (131_073, 32_768),
)

#: Lengths of the messages that are posted out.
LENGTHS_OUT: Final = (MAX_FRAGMENT, 32_768, 32_769, 2 * MAX_FRAGMENT, MAX_MESSAGE, 131_072, 131_073)

#: What `$connect` is made to answer: all that Emissary's answers, and one more.
STATUSES: Final = (400, 401, 403, 404, 409, 421, 429, 500, 502, 503)

#: Posts in a row for question 5, each of so many characters.
SERIAL: Final = (100, 64)

#: Messages at once for question 6; the stage lets 20 a second through.
FLOOD: Final = 200

#: Question 12: long posts to one who does not read (or does), and short ones from several threads at once.
LONG_POSTS: Final = (200, 100_000)
SHORT_POSTS: Final = (500, 64, 8)
_SMALL_BUFFER: Final = 65_536

#: Refused connects for question 15: more than the count of the messages may be off by, which is what question
#: 6 sends too much, and as many error frames.
REFUSALS: Final = 600

#: The variables of Emissary's access log, in template.yaml.
ACCESS_LOG: Final = (
    "requestId", "requestTimeEpoch", "eventType", "routeKey", "connectionId", "identity.sourceIp", "status",
    "integration.status", "integrationLatency", "integration.error", "error.message",
)  # fmt: skip

#: The longest timeout that Lambda's model has, in seconds.
LONGEST_TIMEOUT: Final = 1_800

#: How long to watch a connection after an update of the stack, and to wait for a metric, in seconds.
_AFTER_UPDATE: Final = 60.0
_METRIC: Final = 600.0


def messages_in(probe: Probe) -> Findings:
    """Question 1: send messages of several frames in; what the function says came, or how it ended."""
    return {"cases": [_message_in(probe, size, frame) for size, frame in LENGTHS_IN]}


def _message_in(probe: Probe, size: int, frame: int) -> dict[str, Any]:
    head = '{"op": "size", "id": 0, "fill": "'
    with probe.open() as connection:
        connection.send((head + "x" * (size - len(head) - 2) + '"}').encode(), frame=frame)
        event = connection.receive()
    answer = event.answer
    return {
        "characters": size,
        "frame": frame,
        "seen": answer["size"] if answer else None,
        "otherwise": None if answer else str(event),
    }


def messages_out(probe: Probe) -> Findings:
    """Question 2: have messages posted; what comes, and what the post says."""
    return {"cases": [_message_out(probe, size) for size in LENGTHS_OUT]}


def _message_out(probe: Probe, size: int) -> dict[str, Any]:
    others: list[Event] = []
    with probe.open() as connection:
        number = connection.ask("post", size=size, count=1)
        end = None
        try:
            answer = connection.answer_to(number, others=others.append)
            while answer["taken"] and not others:
                others.append(connection.receive())
        except ProbeError as exc:
            answer, end = {"taken": 0, "refusals": {}}, str(exc)
    # As the function has written it.
    wanted = b"000000".ljust(size, b".")
    came = next((event for event in others if event.data == wanted), None)
    return {
        "characters": size,
        "post": "ok" if answer["taken"] else ", ".join(answer["refusals"]) or end,
        "received": len(came.data) if came else None,
        "frames": came.frames if came else None,
        "otherwise": None if came or not others else str(others[0]),
    }


def not_text(probe: Probe) -> Findings:
    """Question 3: have bytes posted that are not UTF-8; and send a binary frame in."""
    with probe.open() as connection:
        others: list[Event] = []
        answer = connection.answer_to(connection.ask("binary"), others=others.append)
        if not others:
            others.append(connection.receive(probe.pace.settle))
        came = others[0]
    with probe.open() as connection:
        connection.send(b'{"op": "size", "id": 0}', opcode=ABNF.OPCODE_BINARY)
        event = connection.receive()
    return {
        "post": answer["post"],
        "received": str(came) if came.over else came.kind,
        "intact": came.data == b"\xff\xfe" * 8,
        "sent_in": "answered" if event.answer else str(event),
    }


def statuses(probe: Probe) -> Findings:
    """Question 4: which status an upgrade is answered with, by what `$connect` says."""
    return {"statuses": {str(status): _status(probe, status) for status in STATUSES}}


def _status(probe: Probe, status: int) -> int:
    try:
        with probe.open(f"?status={status}"):
            return 101
    except UpgradeRefusedError as exc:
        return exc.status


def serial_posts(probe: Probe) -> Findings:
    """Question 5: posts one after another; their order, and how long each takes."""
    count, size = SERIAL
    with probe.open() as connection:
        answer, numbers = _posts(connection, connection.ask("post", size=size, count=count))
    times = answer.get("milliseconds") or [0.0]
    return {
        "taken": answer["taken"],
        "received": len(numbers),
        "different": len(set(numbers)),
        "in_order": numbers == sorted(numbers),
        "first_milliseconds": times[0],
        "median_milliseconds": statistics.median(times),
        "longest_milliseconds": max(times),
    }


def _posts(connection: Connection, asked: int) -> tuple[dict[str, Any], list[int]]:
    """The answer to what was ``asked``, and the numbers of the posts that came, at most those taken."""
    numbers: list[int] = []

    def note(event: Event) -> None:
        if event.text[:6].isdigit():
            numbers.append(int(event.text[:6]))

    answer = connection.answer_to(asked, others=note)
    return answer, numbers + _drain(connection, answer["taken"] - len(numbers))


def _drain(connection: Connection, most: int) -> list[int]:
    """The numbers of the posts that come, up to ``most``."""
    numbers: list[int] = []
    while len(numbers) < most:
        event = connection.receive()
        if event.over or event.kind == "silence":
            break
        if event.text[:6].isdigit():
            numbers.append(int(event.text[:6]))
    return numbers


def throttled(probe: Probe) -> Findings:
    """Question 6: ten times as many messages at once as the stage lets through."""
    answered, frames, end = 0, Counter[str](), None
    with probe.open() as connection:
        for _ in range(FLOOD):
            connection.ask("size")
        while answered + frames.total() < FLOOD and end is None:
            event = connection.receive()
            if event.over or event.kind == "silence":
                end = str(event)
            elif event.answer:
                answered += 1
            else:
                frames[event.text] += 1
    probe.tally.throttled += FLOOD - answered + frames.total()
    return {"sent": FLOOD, "answered": answered, "error_frames": dict(frames), "end": end}


def failures(probe: Probe) -> Findings:
    """Question 7: a function that fails, and one that runs longer than API Gateway waits."""
    with probe.open() as connection:
        connection.ask("fail")
        failed = connection.receive()
    with probe.open() as connection:
        begin = time.monotonic()
        connection.ask("sleep", seconds=probe.pace.sleep)
        slow = connection.receive(probe.pace.sleep + probe.pace.patience)
        seconds = time.monotonic() - begin
    return {"fails": _shown(failed), "sleeps": _shown(slow), "after_seconds": round(seconds, 1)}


def _shown(event: Event) -> str:
    return event.text if event.kind == "text" else str(event)


def names(probe: Probe) -> Findings:
    """Question 8: the addresses of the stack's name here and in a function; one that has posted got by."""
    host = urlsplit(probe.url).hostname or ""
    try:
        socket.getaddrinfo(host, None, flags=socket.AI_NUMERICHOST)
        return {"name": False}
    except socket.gaierror:
        pass
    try:
        found = {(info[0], info[4][0]) for info in socket.getaddrinfo(host, 443, type=socket.SOCK_STREAM)}
    except socket.gaierror:
        found = set()  # behind a proxy, which resolves names itself
    families = [family for family, _ in found]
    with probe.open() as connection:
        answer = connection.call("resolve")
    return {
        "name": True,
        "here": {"ipv4": families.count(socket.AF_INET), "ipv6": families.count(socket.AF_INET6)},
        "function": {"ipv4": answer["ipv4"], "ipv6": answer["ipv6"]},
    }


def deletion(probe: Probe) -> Findings:
    """Question 9: how DELETE ends a connection, as its client and as `$disconnect` see it."""
    with probe.open() as watcher, probe.open() as connection:
        told, own = watcher.call("who")["connection"], connection.call("who")["connection"]
        connection.ask("close", report_to=told)
        event = connection.receive()
        return {
            "client": str(event),
            "client_code": event.code,
            **_disconnect(probe, watcher, own),
        }


def _disconnect(probe: Probe, watcher: Connection, ended: str) -> dict[str, Any]:
    """What `$disconnect` was told of a connection; None if it is not called in time."""
    deadline = time.monotonic() + probe.pace.patience
    while True:
        number = watcher.ask("ended", connection=ended)
        answer = watcher.answer_to(number, others=lambda _event: None)
        if answer["code"] is not None or time.monotonic() > deadline:
            return {"disconnect_code": answer["code"], "disconnect_reason": answer["reason"]}
        time.sleep(0.5)


def pings(probe: Probe) -> Findings:
    """Question 10: for longer than 10 minutes a connection that pings, one in silence, one that talks."""
    began, step = time.monotonic(), probe.pace.idle / 24
    ends: dict[str, str | None] = {"pings": None, "silent": None, "talks": None}
    lasted: dict[str, float] = {}
    with contextlib.ExitStack() as stack:
        open_ones = {name: stack.enter_context(probe.open()) for name in ends}
        while (passed := time.monotonic() - began) < probe.pace.idle and open_ones:
            if "pings" in open_ones:
                open_ones["pings"].ping()
            if "talks" in open_ones:
                open_ones["talks"].ask("size")
            for name, event in _ends(open_ones, began + passed + step):
                ends[name], lasted[name] = str(event), round(time.monotonic() - began, 1)
        answered = {}
        for name, connection in open_ones.items():
            try:
                connection.answer_to(connection.ask("size"), others=lambda _event: None)
                answered[name] = True
            except ProbeError:
                answered[name] = False
    return {
        "watched_seconds": probe.pace.idle,
        "connections": {
            name: {"end": end, "after_seconds": lasted.get(name), "answered_at_the_end": answered.get(name)}
            for name, end in ends.items()
        },
    }


def _ends(connections: dict[str, Connection], until: float) -> Iterator[tuple[str, Event]]:
    """Take out those that end until then; what else comes is of no interest."""
    while connections and (left := until - time.monotonic()) > 0:
        for name, connection in list(connections.items()):
            event = connection.receive(min(0.1, left))
            if event.over:
                del connections[name]
                yield name, event


def update(probe: Probe) -> Findings:
    """Question 11: a connection that talks while the stack is updated, and a minute longer; then put back."""
    account = probe.owned()
    try:
        return _update(probe, account)
    finally:
        account.undo_update()


def _update(probe: Probe, account: Account) -> Findings:
    answered, asked, frames, end = 0, 0, Counter[str](), None
    state, over, began = "", None, time.monotonic()
    with probe.open() as connection:
        connection.call("size")
        account.begin_update()
        while end is None and (over is None or time.monotonic() < over):
            connection.ask("size")
            asked += 1
            event = connection.receive(probe.pace.settle + 2)
            if event.answer:
                answered += 1
                time.sleep(1)
            elif event.over:
                end = event
            else:
                frames[_shown(event)] += 1
            if over is None:
                state = account.update_state()
                over = None if state.endswith("_IN_PROGRESS") else time.monotonic() + _AFTER_UPDATE
    return {
        "update": state,
        "asked": asked,
        "answered": answered,
        "error_frames": dict(frames),
        "end": None if end is None else str(end),
        "end_code": None if end is None else end.code,
        "seconds": round(time.monotonic() - began, 1),
    }


def rates(probe: Probe) -> Findings:
    """Question 12: how much is taken for a client that does not read, and how fast for one that does."""
    long_count, long_size = LONG_POSTS
    short_count, short_size, threads = SHORT_POSTS
    found: dict[str, Any] = {}
    with probe.open() as watcher, probe.open(receive_buffer=_SMALL_BUFFER) as connection:
        told = watcher.call("who")["connection"]
        number = connection.ask("post", size=long_size, count=long_count, until_refused=True, report_to=told)
        answer = watcher.answer_to(number, seconds=5 * probe.pace.patience)
        found["not_reading"] = _rate(long_size, answer, _drain(connection, answer["taken"]))
    with probe.open() as connection:
        number = connection.ask("post", size=long_size, count=long_count)
        found["reading"] = _rate(long_size, *_posts(connection, number))
    with probe.open() as connection:
        number = connection.ask("post", size=short_size, count=short_count, threads=threads)
        found["short"] = _rate(short_size, *_posts(connection, number))
    return found


def _rate(size: int, answer: dict[str, Any], numbers: list[int]) -> dict[str, Any]:
    return {
        "size": size,
        "taken": answer["taken"],
        "received": len(set(numbers)),
        "refusals": answer["refusals"],
        "first_refused": answer["first_refused"],
        "posts_a_second": round(len(answer["milliseconds"]) / max(0.001, answer["seconds"])),
    }


def conditions(probe: Probe) -> Findings:
    """Question 13: three writes whose conditions fail, by a role without GetItem."""
    with probe.open() as connection:
        answer = connection.call("conditions")
    return {name: answer[name] for name in ("put_item", "update_item", "transact_write_items")}


def metrics(probe: Probe) -> Findings:
    """Question 14: a metric in a log of JSON without Lambda's own lines, and whether CloudWatch has it."""
    account, run = probe.owned(), uuid.uuid4().hex
    with probe.open() as connection:
        connection.call("metric", run=run)
    began = time.monotonic()
    while True:
        arrived = account.metric_sum(run, datetime.datetime.now(datetime.UTC))
        passed = time.monotonic() - began
        if arrived or passed > _METRIC:
            return {"sum": arrived, "after_seconds": round(passed)}
        time.sleep(15)


def bill(probe: Probe) -> Findings:
    """Question 15: connects that are refused, and what this run must have been billed for besides."""
    for _ in range(REFUSALS):
        with contextlib.suppress(UpgradeRefusedError), probe.open("?status=403"):
            pass
    tally = probe.tally
    return {
        "day": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "connects": tally.connects,
        "refused_connects": tally.refused,
        "message_units": tally.units_in + tally.units_out,
        "throttled_units": tally.throttled,
        "bytes_out": tally.bytes_out,
    }


def longest_timeout(probe: Probe) -> Findings:
    """Question 16: Lambda's longest timeout, for a moment."""
    return {"seconds": LONGEST_TIMEOUT, "answer": probe.owned().try_timeout(LONGEST_TIMEOUT)}


def access_log(probe: Probe) -> Findings:
    """Question 17: the variables of Emissary's access log, for a moment."""
    wanted = json.dumps({name: f"$context.{name}" for name in ACCESS_LOG})
    return {"variables": list(ACCESS_LOG), "answer": probe.owned().try_access_log(wanted)}


#: What an experiment is.
Experiment = Callable[[Probe], Findings]
