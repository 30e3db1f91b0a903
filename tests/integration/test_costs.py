"""What each kind of message costs, by the local cloud's meter, is what docs/security.md says."""

from __future__ import annotations

import pytest

from tests.helpers.costs import measure
from tests.helpers.local_cloud import LINUX_ONLY
from tools import costs

pytestmark = [LINUX_ONLY, pytest.mark.slow]


def test_each_message_costs_what_the_table_says() -> None:
    """If that is to change: ``make costs`` renews the table."""
    assert measure() == costs.load()
