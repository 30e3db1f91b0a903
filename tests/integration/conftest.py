"""One local cloud for all tests that need no faults and no settings of their own: a start takes a second."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from emissary_lib import Dialer, LocalCloud
from tests.helpers.cloudside import PARAMETERS, TEMPLATE


@pytest.fixture(scope="session")
def cloud() -> Iterator[LocalCloud]:
    """The local cloud without faults; it reaches every server of this machine."""
    with LocalCloud(TEMPLATE, parameters=PARAMETERS) as running:
        yield running
        assert running.denials() == [], "template.yaml's policies do not allow what the functions do"


@pytest.fixture
def dialer(cloud: LocalCloud) -> Iterator[Dialer]:
    """A dialer of the shared cloud."""
    with Dialer(cloud.url, cloud.key) as made:
        yield made
