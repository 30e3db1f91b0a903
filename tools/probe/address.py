"""What a stack's URL tells of it, and hiding that in what others will read. Pure."""

from __future__ import annotations

import re
from typing import Any, Final
from urllib.parse import urlsplit

_NAME: Final = re.compile(r"([a-z0-9]+)\.execute-api\.([a-z0-9-]+)\.")

#: Ids of an account, wherever AWS puts them into a text: the ARN first, which may have another one.
_ARN: Final = re.compile(r"\barn:[\w-]+:[^\s'\"<>,;()\[\]{}\\]*")
_ACCOUNT: Final = re.compile(r"(?<!\d)\d{12}(?!\d)")


def region(url: str) -> str | None:
    """The region in API Gateway's own name; None for any other name.

    Example:
        >>> region("wss://a1b2c3.execute-api.eu-west-1.amazonaws.com/probe")
        'eu-west-1'
    """
    match = _NAME.match(urlsplit(url).hostname or "")
    return match[2] if match else None


def api_id(url: str) -> str | None:
    """The API's id in API Gateway's own name; None for any other name.

    Example:
        >>> api_id("wss://a1b2c3.execute-api.eu-west-1.amazonaws.com/probe")
        'a1b2c3'
    """
    match = _NAME.match(urlsplit(url).hostname or "")
    return match[1] if match else None


def hidden(value: Any, url: str) -> Any:
    """The same without the URL, its host, the API's id, ARNs and ids of accounts, in each text of it.

    Args:
        value: As of JSON: texts in lists and mappings, and among the names in those.
        url: Of the stack; empty if it is not known.

    Example:
        >>> hidden(["no WebSocket to wss://relay.example.com/a", "role of 111122223333"], "wss://relay.example.com/a")
        ['no WebSocket to [url]', 'role of [account]']
    """
    parts = urlsplit(url)
    secrets = {url: "[url]", parts.netloc: "[host]", parts.hostname: "[host]", api_id(url): "[api]"}
    replacements = [
        # A name that is part of a longer one is something else.
        (re.compile(rf"(?<![\w.-]){re.escape(secret)}(?![\w-])", re.IGNORECASE), mark)
        for secret, mark in secrets.items()
        if secret
    ]
    return _hidden(value, [*replacements, (_ARN, "[arn]"), (_ACCOUNT, "[account]")])


def _hidden(value: Any, replacements: list[tuple[re.Pattern[str], str]]) -> Any:
    if isinstance(value, str):
        for pattern, mark in replacements:
            value = pattern.sub(mark, value)
        return value
    if isinstance(value, dict):
        return {_hidden(name, replacements): _hidden(each, replacements) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_hidden(each, replacements) for each in value]
    return value
