"""Value objects that cost next to nothing to define.

The standard library's dataclasses write and compile code for every class, when it is defined: half of what
importing the dialer would take. What a :class:`Record` does is compiled once, for all of them.
"""

from __future__ import annotations

from typing import Any, ClassVar, Never, Self, TypeVar, dataclass_transform

_AnyRecord = TypeVar("_AnyRecord", bound="Record")

_MISSING = object()


class _Hidden:
    def __init__(self, default: object) -> None:
        self.default = default


def hidden(*, default: Any = _MISSING) -> Any:
    """A field that no ``repr`` shows: it is secret, or long."""
    return _Hidden(default)


@dataclass_transform(frozen_default=True, field_specifiers=(hidden,))
class Record:
    """Base of immutable values: a subclass's annotated names are its fields.

    Its instances are equal if they are of one class and their fields are equal. They cannot be changed; with
    :func:`replace` one makes others of them. ``__post_init__`` may refuse what was given. A class of which
    many are made has ``__slots__``, and an ``__init__`` of its own with the defaults in it.

    Raises:
        TypeError: A field is missing, given twice, or unknown.
    """

    __slots__ = ()
    __match_args__: ClassVar[tuple[str, ...]] = ()
    _defaults: ClassVar[dict[str, Any]] = {}
    _shown: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        own, names = vars(cls), tuple(cls.__annotations__)
        # With a hand-written __init__, the defaults are in there, and what stands here are slots.
        given = {name: own[name] for name in names if name in own and "__init__" not in own}
        secret = {name: value.default for name, value in given.items() if isinstance(value, _Hidden)}
        for name in secret:
            delattr(cls, name)
        cls.__match_args__ = names  # type: ignore[misc]  # mypy makes its own of the same names
        cls._defaults = {name: value for name, value in (given | secret).items() if value is not _MISSING}
        cls._shown = tuple(name for name in names if name not in secret)

    def __init__(self, *args: Any, **named: Any) -> None:
        names = self.__match_args__
        if named or len(args) != len(names):
            args = self._arrange(args, named)
        for name, value in zip(names, args, strict=True):
            object.__setattr__(self, name, value)
        self.__post_init__()

    def __post_init__(self) -> None:
        """Refuse what cannot be; the fields are set."""

    @classmethod
    def _arrange(cls, args: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, ...]:
        names = cls.__match_args__
        if len(args) > len(names):
            raise TypeError(f"{cls.__name__} has {len(names)} fields, not {len(args)}")
        first = dict(zip(names, args, strict=False))
        if twice := first.keys() & named.keys():
            raise TypeError(f"{cls.__name__} was given {', '.join(sorted(twice))} twice")
        if unknown := named.keys() - set(names):
            raise TypeError(f"{cls.__name__} has no field {', '.join(sorted(unknown))}")
        values = cls._defaults | first | named
        if missing := [name for name in names if name not in values]:
            raise TypeError(f"{cls.__name__} lacks {', '.join(missing)}")
        return tuple(values[name] for name in names)

    def _values(self) -> tuple[Any, ...]:
        return tuple([getattr(self, name) for name in self.__match_args__])

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._values() == other._values()

    def __hash__(self) -> int:
        return hash(self._values())

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._shown)
        return f"{type(self).__qualname__}({shown})"

    def __setattr__(self, name: str, value: Never) -> None:
        raise AttributeError(f"a {type(self).__name__} cannot be changed: {name}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a {type(self).__name__} cannot be changed: {name}")

    def __reduce__(self) -> tuple[type[Self], tuple[Any, ...]]:
        return type(self), self._values()


def as_dict(record: Record) -> dict[str, Any]:
    """The fields by name, hidden ones too; records in them stay records."""
    return {name: getattr(record, name) for name in record.__match_args__}


def replace(record: _AnyRecord, **changes: Any) -> _AnyRecord:
    """Another record, which differs from ``record`` in these fields."""
    return type(record)(**{**as_dict(record), **changes})
