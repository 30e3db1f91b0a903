"""How large an item is: DynamoDB's own examples and rules."""

from __future__ import annotations

from typing import Any

import pytest

from emissary_local.billing.item_size import item_size


@pytest.mark.parametrize(
    ("value", "size"),
    [
        ({"S": "abc"}, 3),
        ({"S": "m\u00fcde"}, 5),
        ({"N": "0"}, 1),
        ({"N": "27"}, 2),
        ({"N": "-27"}, 3),
        ({"N": "1234567"}, 5),
        ({"N": "1200"}, 2),
        ({"N": "0.012"}, 2),
        ({"B": "aGVsbG8="}, 5),
        ({"BOOL": True}, 1),
        ({"NULL": True}, 1),
        ({"SS": ["ab", "c"]}, 3),
        ({"NS": ["1", "22"]}, 4),
        ({"BS": ["aGVsbG8="]}, 5),
        ({"L": []}, 3),
        ({"L": [{"S": "ab"}, {"BOOL": False}]}, 3 + 3 + 2),
        ({"M": {"k": {"S": "ab"}}}, 3 + 1 + 1 + 2),
    ],
)
def test_a_value_takes_so_many_bytes_and_its_name_comes_on_top(value: dict[str, Any], size: int) -> None:
    assert item_size({"": value}) == size
    assert item_size({"name": value, "pk": {"S": "x"}}) == 4 + size + 2 + 1
