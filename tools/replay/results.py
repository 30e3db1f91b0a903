"""What came of a case, in the form in which it is written down and compared."""

from __future__ import annotations

import base64
import difflib
import re
from collections.abc import Mapping
from typing import Any, Final

from emissary_lib.protocol.errors import EmissaryError
from emissary_lib.protocol.wire.frames import FrameType, decode
from emissary_lib.protocol.wire.payloads import Opened
from tools.replay import example
from tools.replay.cases import text_of
from tools.replay.gateway import FakeGateway
from tools.replay.moment import Moment
from tools.replay.services import Calls

#: A SOCKS5 reply with an IPv4 address: the address is the execution environment's own, the port behind it the
#: kernel's choice. Source: RFC 1928 section 6.
_REPLY: Final = re.compile(rb"(\x05\x00\x00\x01).{6}\Z", re.DOTALL)
_BOUND: Final = b"\\1\x7f\x00\x00\x01\x00\x00"

_MINUTE: Final = 60_000

Items = list[dict[str, Any]]


def result(
    response: Any, items: tuple[Items, Items], calls: Calls, gateway: FakeGateway, moment: Moment
) -> dict[str, Any]:
    """Everything that a case did, moved to the example moment; parts that are empty are left out.

    Args:
        response: The function's answer.
        items: The tables before and after. Where they are the same, the result has no items.
        calls: What it asked of the stand-ins.
        gateway: Where it dialled back to.
        moment: The present.

    What one run has and another has not is made equal: times of the same minute, what is drawn (tokens, the
    relay's instance id, the session's slots), the local address of a connection, messages that are repeated,
    and the order in which a relay's arrive.
    """
    for launch in calls.launched:
        moment.map_token(launch["relay_token"], example.RELAY_TOKEN)
        moment.map_token(launch["resume_token"], example.RESUME_TOKEN)
    for slot in filter(_is_slot, items[1]):
        moment.map_text(f"{slot['limit']}#{slot['slot']}", f"{slot['limit']}#1")
    after = [{**item, "slot": 1} if _is_slot(item) else item for item in items[1]]
    for headers in gateway.dial_backs:
        moment.map_text(headers.get("X-Emissary-Instance", example.INSTANCE), example.INSTANCE)
    posts: list[dict[str, Any]] = []
    for connection, text in calls.posts:
        post = {"to": connection, **_message(text, moment)}
        if post not in posts:
            posts.append(post)
    if gateway.dial_backs:  # a relay posts several messages at once
        posts.sort(key=lambda post: int(post.get("offset", 0)))
    parts = {
        "response": moment.to_example(response),
        "items": [] if items[0] == items[1] else moment.to_example(after),
        "posts": posts,
        "deleted": calls.deleted,
        "launched": moment.to_example(calls.launched),
        "dial_backs": moment.to_example(gateway.dial_backs),
        "other_calls": calls.others,
    }
    return {name: part for name, part in parts.items() if part or name == "response"}


def _is_slot(item: Mapping[str, Any]) -> bool:
    """Each case begins with none: this one was taken."""
    return "slot" in item


def difference(name: str, expected: Mapping[str, Any] | None, got: Mapping[str, Any]) -> str:
    """A readable difference; empty if there is none."""
    if expected is None:
        return f"events/expected/{name}.json has nothing recorded; record it with: make replay RECORD=1\n"
    lines = difflib.unified_diff(
        text_of(expected).splitlines(keepends=True),
        text_of(got).splitlines(keepends=True),
        f"{name}: expected",
        f"{name}: got",
    )
    return "".join(lines)


def _message(text: str, moment: Moment) -> dict[str, Any]:
    try:
        frame = decode(text.encode("utf-8", "surrogatepass"))
    except EmissaryError:
        return {"text": text}
    fields: dict[str, Any] = {
        "type": frame.type.name if isinstance(frame.type, FrameType) else frame.type,
        "generation": frame.generation,
    }
    numbers = {"flags": frame.flags, "window": frame.window, "offset": frame.offset, "ack": frame.ack}
    fields |= {name: int(number) for name, number in numbers.items() if number}
    payload = frame.payload
    if frame.type == FrameType.OPENED:
        opened, payload = Opened.decode(payload)
        fields |= {
            "code": opened.code.name,
            "remaining": round(opened.remaining / _MINUTE) * _MINUTE,
            "grace": opened.grace,
            "resume_token": base64.b64encode(opened.resume_token).decode(),
        }
        payload = _REPLY.sub(_BOUND, payload)
    if payload:
        fields["payload"] = base64.b64encode(moment.bytes_to_example(payload)).decode()
    return fields
