"""The cases: an event in ``events/``, and beside it what is given and what is to come of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tools.replay.errors import ReplayError

EVENTS: Final = Path(__file__).resolve().parents[2] / "events"
EXPECTED: Final = EVENTS / "expected"
GIVEN: Final = EVENTS / "given"


@dataclass(frozen=True, slots=True)
class Case:
    """One case, ``events/<name>.json`` and ``events/expected/<name>.json``.

    Attributes:
        name: Of both files.
        about: What it shows.
        function: Logical id of the function that gets the event.
        items: Name of the file in ``events/given`` with the table's items; None: an empty table.
        before: Names of cases whose events come first.
        gone: Connections that do not exist any more.
        upgrade_status: How a relay's dial-back is answered.
        target: Whether a target that accepts and is silent takes the place of the event's.
        expected: What is to come of it, as at the example moment; None if that was never recorded.
    """

    name: str
    about: str
    function: str
    items: str | None = None
    before: tuple[str, ...] = ()
    gone: frozenset[str] = frozenset()
    upgrade_status: int = 101
    target: bool = False
    expected: Mapping[str, Any] | None = None

    @property
    def event(self) -> Any:
        """The event, as at the example moment."""
        return _read(EVENTS / f"{self.name}.json")

    @property
    def given(self) -> list[dict[str, Any]]:
        """The table's items, as at the example moment."""
        found: list[dict[str, Any]] = [] if self.items is None else _read(GIVEN / f"{self.items}.json")
        return found


def names() -> list[str]:
    """All cases."""
    return sorted(path.stem for path in EVENTS.glob("*.json"))


def load(name: str) -> Case:
    """Read a case.

    Raises:
        ReplayError: If one of its files is missing or broken.
    """
    document = _read(EXPECTED / f"{name}.json")
    given = document.get("given", {})
    unknown = set(given) - {"items", "before", "gone", "upgrade_status", "target"}
    if unknown or "function" not in document or "about" not in document:
        raise ReplayError(f"events/expected/{name}.json needs about and function; unknown: {sorted(unknown)}")
    return Case(
        name=name,
        about=document["about"],
        function=document["function"],
        items=given.get("items"),
        before=tuple(given.get("before", ())),
        gone=frozenset(given.get("gone", ())),
        upgrade_status=given.get("upgrade_status", 101),
        target=given.get("target", False),
        expected=document.get("expected"),
    )


def record(name: str, expected: Mapping[str, Any]) -> None:
    """Write down what a case comes to."""
    path = EXPECTED / f"{name}.json"
    path.write_text(text_of({**_read(path), "expected": expected}), encoding="ascii")


def text_of(value: Any) -> str:
    """JSON as all files of ``events/`` have it."""
    return json.dumps(value, indent=2) + "\n"


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise ReplayError(f"cannot read {path}: {exc}") from exc
