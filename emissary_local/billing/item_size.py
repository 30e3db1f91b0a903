"""How large DynamoDB takes an item to be.

Source: DynamoDB Developer Guide, "DynamoDB item sizes and formats".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

#: What a list or map takes by itself, and each of its elements, in bytes.
_NESTED: Final = 3
_ELEMENT: Final = 1


def item_size(item: Mapping[str, Mapping[str, Any]]) -> int:
    """Bytes of an item in DynamoDB's JSON.

    Numbers are of variable length on DynamoDB, and its page gives only "approximately": one byte for two
    significant digits, and one more.

    Example:
        >>> item_size({"pk": {"S": "müde"}, "n": {"N": "-120"}, "ok": {"BOOL": True}})
        14
    """
    return sum(len(name.encode()) + _value_size(value) for name, value in item.items())


def _value_size(typed: Mapping[str, Any]) -> int:
    ((kind, value),) = typed.items()
    match kind:
        case "S":
            return len(str(value).encode())
        case "N":
            return _number_size(str(value))
        case "B":
            return len(value) * 3 // 4 - str(value).count("=")
        case "SS" | "NS" | "BS":
            return sum(_value_size({kind[0]: each}) for each in value)
        case "L":
            return _NESTED + sum(_ELEMENT + _value_size(each) for each in value)
        case "M":
            return _NESTED + _ELEMENT * len(value) + item_size(value)
    return 1  # BOOL and NULL


def _number_size(text: str) -> int:
    digits = text.lower().partition("e")[0].replace(".", "").lstrip("-+0").rstrip("0")
    return (len(digits) + 1) // 2 + 1 + text.startswith("-")
