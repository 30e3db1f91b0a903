r"""Route selection expressions: which route a message goes to.

``$request.body.action`` and ``${request.body.x.y}`` stand for members of a message that is a JSON object;
``\$`` is a dollar sign, so that ``\$default`` is one and the same route for every message.

Source: API Gateway Developer Guide, "WebSocket selection expressions". Ours, where it says nothing: a number
or a truth value counts as its JSON text; a list, an object and null are no value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

#: Where messages go that choose no route of their own.
DEFAULT: Final = "$default"

#: Routes that no message can choose.
RESERVED: Final = frozenset({"$connect", "$disconnect"})

_PATH: Final = r"request\.body((?:\.[A-Za-z0-9_-]+)+)"
_TOKEN: Final = re.compile(rf"\\\$|\$\{{{_PATH}\}}|\${_PATH}|\$|[^\\$]+|\\")


class RouteSelection:
    """One expression, ready to be evaluated.

    Args:
        expression: The API's RouteSelectionExpression.

    Raises:
        ValueError: If it is empty or has a variable other than members of the message.
    """

    def __init__(self, expression: str) -> None:
        self._parts = list(_parts(expression))
        self._fixed = all(isinstance(part, str) for part in self._parts)
        self._constant = expression.replace("\\$", "$")

    def key(self, message: bytes) -> str | None:
        """The route key that a message evaluates to; None if it lacks what the expression names."""
        if self._fixed:
            return self._constant
        try:
            document = json.loads(message)
        except ValueError:
            return None
        texts = [part if isinstance(part, str) else _text(document, part) for part in self._parts]
        return None if None in texts else "".join(text for text in texts if text is not None)


def _parts(expression: str) -> Iterator[str | tuple[str, ...]]:
    """Literal texts, and paths into the message."""
    if not expression:
        raise ValueError("a WebSocket API needs a route selection expression, such as $request.body.action")
    for match in _TOKEN.finditer(expression):
        path = match.group(1) or match.group(2)
        if match.group() == "$":
            raise ValueError(
                f"the route selection expression {expression!r} has a variable that is not known; known are "
                "$request.body.<member>, ${request.body.<member>.<member>} and \\$ for a dollar sign"
            )
        yield tuple(path[1:].split(".")) if path else match.group().replace("\\$", "$")


def _text(document: Any, path: tuple[str, ...]) -> str | None:
    value = document
    for name in path:
        if not isinstance(value, dict) or name not in value:
            return None
        value = value[name]
    if value is None or isinstance(value, dict | list):
        return None
    return value if isinstance(value, str) else json.dumps(value)
