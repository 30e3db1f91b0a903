"""IAM's wildcards: ``*`` for any characters, ``?`` for one.

Source: IAM User Guide, "IAM JSON policy elements: Action" and "... Resource".
"""

from __future__ import annotations

import re
from typing import Final

#: ``arn:partition:service:region:account:resource``; the resource may have colons of its own.
_ARN_PARTS: Final = 6


class Wildcard:
    """A text with wildcards.

    Args:
        text: The pattern.
        ignore_case: As names of actions are compared.
    """

    def __init__(self, text: str, *, ignore_case: bool = False) -> None:
        self.text = text
        pattern = "".join({"*": ".*", "?": "."}.get(letter, re.escape(letter)) for letter in text)
        self._pattern = re.compile(pattern, re.DOTALL | (re.IGNORECASE if ignore_case else 0))

    def matches(self, value: str) -> bool:
        """Whether all of ``value`` matches."""
        return self._pattern.fullmatch(value) is not None


class ArnPattern:
    """An ARN with wildcards, or ``*``.

    Each of its six parts is compared apart: no wildcard reaches over a colon, but in the last.

    Raises:
        ValueError: If it is neither an ARN nor ``*``.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._parts: tuple[Wildcard, ...] = ()
        if text == "*":
            return
        parts = text.split(":", _ARN_PARTS - 1)
        if len(parts) != _ARN_PARTS or parts[0] != "arn":
            raise ValueError(f"{text!r} is neither an ARN nor *")
        self._parts = tuple(Wildcard(part) for part in parts)

    def matches(self, value: str) -> bool:
        """Whether the ARN ``value`` (or ``*``, of actions that know no resource) matches."""
        if not self._parts:
            return True
        parts = value.split(":", _ARN_PARTS - 1)
        return len(parts) == _ARN_PARTS and all(
            pattern.matches(part) for pattern, part in zip(self._parts, parts, strict=True)
        )
