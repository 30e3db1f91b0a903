"""record: values that are compared, shown and copied like dataclasses, without generated code."""

from __future__ import annotations

import copy
import pickle

import pytest

from emissary_lib.protocol.record import Record, as_dict, hidden, replace


class Point(Record):
    x: int
    y: int = 0
    label: str = hidden(default="")

    def __post_init__(self) -> None:
        if self.x < 0:
            raise ValueError("x is negative")


class Twin(Record):
    x: int
    y: int = 0
    label: str = hidden(default="")


class Login(Record):
    name: str
    password: str = hidden()
    realm: str


class Nothing(Record):
    """No fields, as of an event that says all by being there."""


class Fast(Record):
    __slots__ = ("x", "y")

    x: int
    y: int

    def __init__(self, x: int, y: int = 7) -> None:
        put = object.__setattr__
        put(self, "x", x)
        put(self, "y", y)


@pytest.mark.parametrize(
    ("made", "values"),
    [
        (Point(1, 2, "a"), (1, 2, "a")),
        (Point(1), (1, 0, "")),
        (Point(1, label="a"), (1, 0, "a")),
        (Point(y=2, x=1), (1, 2, "")),
    ],
)
def test_fields_are_given_by_place_or_by_name_and_the_rest_has_defaults(
    made: Point, values: tuple[int, int, str]
) -> None:
    assert (made.x, made.y, made.label) == values
    assert as_dict(made) == dict(zip(("x", "y", "label"), values, strict=True))


@pytest.mark.parametrize(
    ("args", "named", "words"),
    [
        ((), {}, "Point lacks x"),
        ((1, 2, "a", 3), {}, "Point has 3 fields, not 4"),
        ((1,), {"z": 3}, "Point has no field z"),
        ((1,), {"x": 3}, "Point was given x twice"),
    ],
)
def test_what_does_not_fit_the_fields_is_a_type_error(
    args: tuple[object, ...], named: dict[str, object], words: str
) -> None:
    with pytest.raises(TypeError, match=words):
        Point(*args, **named)  # type: ignore[arg-type]


def test_a_hidden_field_without_a_default_has_to_be_given() -> None:
    with pytest.raises(TypeError, match="Login lacks password, realm"):
        Login("ann")  # type: ignore[call-arg]


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        Point(-1)
    with pytest.raises(ValueError, match="negative"):
        replace(Point(1), x=-1)


def test_equal_if_of_one_class_and_of_equal_fields() -> None:
    assert Point(1, 2) == Point(1, 2)
    assert Point(1, 2) != Point(1, 3)
    assert Point(1, 2, "a") != Point(1, 2, "b")
    assert Point(1, 2) != Twin(1, 2)
    assert len({Point(1, 2), Point(1, 2), Point(1, 3), Twin(1, 2)}) == 3
    assert Nothing() == Nothing()


def test_true_even_without_fields() -> None:
    assert Nothing()


def test_hidden_fields_are_not_shown() -> None:
    assert repr(Point(1, 2, "long")) == "Point(x=1, y=2)"
    assert repr(Login("ann", "secret", "here")) == "Login(name='ann', realm='here')"
    assert repr(Nothing()) == "Nothing()"


@pytest.mark.parametrize("made", [Point(1), Fast(1)], ids=repr)
def test_it_cannot_be_changed(made: Point | Fast) -> None:
    with pytest.raises(AttributeError, match="cannot be changed: x"):
        made.x = 2  # type: ignore[misc]
    with pytest.raises(AttributeError, match="cannot be changed: x"):
        del made.x
    with pytest.raises(AttributeError, match="cannot be changed: other"):
        made.other = 2  # type: ignore[assignment]
    assert made.x == 1


@pytest.mark.parametrize(
    "made", [Point(1, 2, "a"), Login("ann", "secret", "here"), Fast(1), Nothing()], ids=repr
)
def test_copies_are_equal(made: Record) -> None:
    assert pickle.loads(pickle.dumps(made)) == made
    assert copy.deepcopy(made) == copy.copy(made) == made
    assert replace(made) == made


def test_a_replaced_field() -> None:
    assert replace(Point(1, 2, "a"), y=3) == Point(1, 3, "a")
    with pytest.raises(TypeError, match="no field z"):
        replace(Point(1), z=3)


def test_patterns_know_the_fields() -> None:
    match Point(1, 2):
        case Point(x, 2):
            assert x == 1
        case _:
            pytest.fail("no match")


def test_an_init_by_hand_has_its_own_defaults() -> None:
    assert Fast(1) == Fast(1, 7) == Fast(y=7, x=1)
    assert hash(Fast(1)) == hash(Fast(1, 7))
    assert repr(Fast(1)) == "Fast(x=1, y=7)"
    assert not hasattr(Fast(1), "__dict__")
