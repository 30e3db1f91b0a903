"""What findings say about each assumption. Pure: findings in, a verdict out, no network and no clock."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from emissary_lib.protocol.constants import MAX_FRAGMENT, MAX_MESSAGE
from tools.probe.verdict import Findings, Verdict, holds_if, not_answered

#: Close codes that `$disconnect` of Emissary takes for a loss: the other side may come back.
LOSSES: Final = frozenset({1001, 1006})

#: Close codes after which a client of Emissary comes back at once.
COMES_BACK: Final = frozenset({1001, 1006, 1011, 1012})

#: How long a post takes by Emissary's figures, in milliseconds (docs/operations.md).
POST_MILLISECONDS: Final = (8, 24)

#: What a post is answered that is too much for the gateway or its client (PostToConnection).
_TOO_MUCH: Final = "429 "

#: By how much a bill may differ from the count, as a share.
_BILL_SLACK: Final = 0.05

#: What a post comes to if its length was too much, or if nothing was wrong with it.
_ABOUT_LENGTH: Final = (
    "ok", "413 ", *(f"instead of an answer: {each}" for each in ("closed", "lost", "silence"))
)  # fmt: skip

#: What a failed condition is answered, without the item; and what a role is that may not ask for it.
_ABOUT_CONDITIONS: Final = frozenset(
    {"ConditionalCheckFailedException", "TransactionCanceledException", "AccessDeniedException"}
)

#: A refusal of the SDK's, by its code, that is about the value that was tried and nothing else.
_TIMEOUT_REFUSED: Final = re.compile(
    r"\((ValidationException|InvalidParameterValueException)\).*(?<![\w-])timeout(?![\w-])",
    re.IGNORECASE | re.DOTALL,
)
_VARIABLE_REFUSED: Final = re.compile(r"\(BadRequestException\).*variable", re.IGNORECASE | re.DOTALL)


def messages_in(found: Findings) -> Verdict:
    """Question 1."""
    outcomes = {(each["characters"], each["frame"]): _came(each, "seen") for each in found["cases"]}
    ours = [(MAX_FRAGMENT, MAX_FRAGMENT), (2 * MAX_FRAGMENT, MAX_FRAGMENT), (MAX_MESSAGE, MAX_FRAGMENT)]
    why = "; ".join(
        f"{size:,} in frames of {frame:,}: {outcome}" for (size, frame), outcome in outcomes.items()
    )
    failed = [outcomes[case] for case in ours if outcomes[case] != "whole"]
    if any(each.startswith("text: ") for each in failed):  # as when the function is throttled
        return not_answered(f"an error frame is not about the length: {why}")
    return holds_if(not failed, why)


def messages_out(found: Findings) -> Verdict:
    """Question 2."""
    outcomes = {each["characters"]: _came(each, "received") for each in found["cases"]}
    parts = []
    for each in found["cases"]:
        outcome = outcomes[each["characters"]]
        shown = (
            f"whole, {each['frames']} frames" if outcome == "whole" else f"{outcome}; post: {each['post']}"
        )
        parts.append(f"{each['characters']:,}: {shown}")
    ours = (MAX_FRAGMENT, 2 * MAX_FRAGMENT, MAX_MESSAGE)
    posts = [str(each["post"]) for each in found["cases"] if each["characters"] in ours]
    if not all(post.startswith(_ABOUT_LENGTH) for post in posts):
        return not_answered(f"refused for another reason than the length: {'; '.join(parts)}")
    return holds_if(all(outcomes[size] == "whole" for size in ours), "; ".join(parts))


def _came(case: Mapping[str, Any], member: str) -> str:
    if case[member] is None:
        return case["otherwise"] or "nothing came"
    return "whole" if case[member] == case["characters"] else f"{case[member]:,} came"


def not_text(found: Findings) -> Verdict:
    """Question 3."""
    came = found["received"]
    same = ", the same bytes" if found["intact"] else ""
    why = f"post: {found['post']}, then {came}{same}; a binary frame sent in: {found['sent_in']}"
    return holds_if(not (came == "binary" and found["intact"]), why)


def statuses(found: Findings) -> Verdict:
    """Question 4."""
    others = {asked: got for asked, got in found["statuses"].items() if int(asked) != got}
    if not others:
        return holds_if(True, f"as they are: {', '.join(found['statuses'])}")
    return holds_if(False, "; ".join(f"{asked} became {got}" for asked, got in others.items()))


def serial_posts(found: Findings) -> Verdict:
    """Question 5."""
    low, high = POST_MILLISECONDS
    order = "in order" if found["in_order"] else "not in order"
    why = (
        f"{found['taken']} taken, {found['received']} received, {order}; a post takes "
        f"{found['median_milliseconds']:g} ms (median; {found['first_milliseconds']:g} the first, "
        f"{found['longest_milliseconds']:g} the longest; Emissary's figures take {low} to {high})"
    )
    return holds_if(found["taken"] == found["received"] == found["different"] > 0, why)


def throttled(found: Findings) -> Verdict:
    """Question 6."""
    frames: Mapping[str, int] = found["error_frames"]
    told = sum(frames.values())
    parts = [f"of {found['sent']}, {found['answered']} were answered"]
    parts += [f"{count} by {text}" for text, count in frames.items()]
    parts += [f"then {found['end']}"] if found["end"] else []
    why = "; ".join(parts)
    if found["answered"] == found["sent"]:
        return not_answered(f"nothing was throttled: {why}; run it again")
    return holds_if(found["answered"] + told == found["sent"] and all(map(_is_error_frame, frames)), why)


def _is_error_frame(text: object) -> bool:
    """Whether a dialer takes it for a gateway error (docs/protocol.md rule 1-4), and can name it."""
    try:
        frame = json.loads(str(text))
    except ValueError:
        return False
    return isinstance(frame, dict) and isinstance(frame.get("message"), str)


def failures(found: Findings) -> Verdict:
    """Question 7."""
    why = f"fails: {found['fails']}; too slow: {found['sleeps']}, after {found['after_seconds']:g} s"
    return holds_if(_is_error_frame(found["fails"]) and _is_error_frame(found["sleeps"]), why)


def names(found: Findings) -> Verdict:
    """Question 8."""
    if not found["name"]:
        return not_answered("the URL has an address for a name; use the one that API Gateway has given")
    here, function = found["here"], found["function"]
    why = (
        f"AAAA records: {here['ipv6']} here, {function['ipv6']} in the function; A: {here['ipv4']} and "
        f"{function['ipv4']}; the function, without a VPC, has posted"
    )
    return holds_if(function["ipv6"], why)


def deletion(found: Findings) -> Verdict:
    """Question 9."""
    told = found["disconnect_code"]
    if told is None:
        return not_answered(f"the client: {found['client']}; $disconnect was not called in time")
    why = f"the client: {found['client']}; $disconnect: {told} {found['disconnect_reason']!r}"
    return holds_if(told not in LOSSES, why)


def pings(found: Findings) -> Verdict:
    """Question 10."""
    each: Mapping[str, Any] = found["connections"]
    lived = {name: case["end"] is None and case["answered_at_the_end"] for name, case in each.items()}
    why = "; ".join(
        f"{name}: " + ("lived on" if lived[name] else f"{case['end']} after {case['after_seconds']} s")
        for name, case in each.items()
    )
    if lived["silent"]:
        return not_answered(f"{found['watched_seconds']:g} s are too short, even the silent one lived: {why}")
    if not lived["talks"]:
        return holds_if(False, f"messages do not keep a connection either: {why}")
    return holds_if(not lived["pings"], why)


def update(found: Findings) -> Verdict:
    """Question 11."""
    if found["update"] != "UPDATE_COMPLETE" and found["end"] is None:
        return not_answered(f"the update ended as {found['update']}")
    why = (
        f"{found['update']}; {found['answered']} of {found['asked']} messages answered, "
        f"{sum(found['error_frames'].values())} by an error frame; "
        f"{found['end'] or 'the connection lived on'}, {found['seconds']:g} s in all"
    )
    code = found["end_code"]
    return holds_if(found["end"] is None or code is None or code in COMES_BACK, why)


def rates(found: Findings) -> Verdict:
    """Question 12."""
    parts, good = [], True
    for name, words in {
        "not_reading": "does not read",
        "reading": "reads",
        "short": "reads, eight at once",
    }.items():
        case = found[name]
        refusals = {key: count for key, count in case["refusals"].items() if count}
        good = (
            good
            and case["received"] == case["taken"] > 0
            and all(each.startswith(_TOO_MUCH) for each in refusals)
        )
        shown = ", ".join(f"{count} {key}" for key, count in refusals.items()) or "none refused"
        first = "" if case["first_refused"] is None else f" (first the {case['first_refused'] + 1}.)"
        parts.append(
            f"a client that {words}, {case['size']:,} characters: {case['taken']} taken, {case['received']} "
            f"received, {shown}{first}, {case['posts_a_second']}/s"
        )
    return holds_if(good, "; ".join(parts))


def conditions(found: Findings) -> Verdict:
    """Question 13."""
    why = "; ".join(f"{name}: {outcome}" for name, outcome in found.items())
    others = {outcome for outcome in found.values() if outcome != "item"}
    if not others <= _ABOUT_CONDITIONS:
        return not_answered(f"failed for another reason than the condition: {why}")
    return holds_if(not others, why)


def metrics(found: Findings) -> Verdict:
    """Question 14."""
    if found["sum"]:
        return holds_if(True, f"CloudWatch has it after {found['after_seconds']} s")
    return holds_if(False, f"CloudWatch has nothing after {found['after_seconds']} s")


def bill(found: Findings) -> Verdict:
    """Question 15: what a run sends is known at once; what it is billed for, a day later (``usage``).

    Messages that the throttle of question 6 has not let through may be metered or not: either figure will do.
    """
    most, refused = found["message_units"], found["refused_connects"]
    least = most - found.get("throttled_units", 0)
    usage: Mapping[str, float] | None = found.get("usage")
    if usage is None:
        free_of_them, with_them = _units(least, most), _units(least + refused, most + refused)
        return not_answered(
            f"the bill of {found['day']} is known a day later, and --bill reads it: {free_of_them} units of "
            f"messages if refused connects are free, {with_them} if they are metered; "
            f"{found['bytes_out']:,} bytes of messages out"
        )
    billed = sum(quantity for name, quantity in usage.items() if "Message" in name)
    lines = ", ".join(f"{name} {quantity:g}" for name, quantity in sorted(usage.items())) or "nothing"
    why = f"{_units(least, most)} units of messages, {refused} refused connects; billed: {lines}"
    if billed < (1 - _BILL_SLACK) * least:
        return not_answered(f"the bill is not complete yet: {why}")
    if billed > (1 + _BILL_SLACK) * (most + refused):
        return not_answered(f"the account has other WebSocket APIs: {why}")
    if most >= least + refused:
        return not_answered(f"too few refused connects beside the throttled messages to tell: {why}")
    free = billed < (most + least + refused) / 2
    if least == most:
        return holds_if(free, why)
    messages = billed - (0 if free else refused)
    metered = "metered" if abs(messages - most) < abs(messages - least) else "not metered"
    return holds_if(free, f"{why}; what was throttled is {metered}")


def _units(least: int, most: int) -> str:
    return f"{most:,}" if least == most else f"{least:,} (without what was throttled) or {most:,}"


def longest_timeout(found: Findings) -> Verdict:
    """Question 16."""
    answer = found["answer"]
    if answer != "ok" and not _TIMEOUT_REFUSED.search(answer):
        return not_answered(f"refused for another reason: {answer}")
    return holds_if(answer == "ok", f"{found['seconds']:,} s: {answer}")


def access_log(found: Findings) -> Verdict:
    """Question 17."""
    answer = found["answer"]
    if answer != "ok" and not _VARIABLE_REFUSED.search(answer):
        return not_answered(f"refused for another reason: {answer}")
    return holds_if(answer == "ok", f"{len(found['variables'])} variables: {answer}")


#: What a verdict is made by.
Judge = Callable[[Findings], Verdict]
