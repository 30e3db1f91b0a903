"""Local clouds that tests share: a start takes a second. One with settings of its own is its test's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from emissary_lib import Dialer
from emissary_local import LocalCloud
from tests.helpers.kinds import KINDS, OWN, Kind
from tests.helpers.local_cloud import PARAMETERS, TEMPLATE, dialer_of
from tests.helpers.servers import Server, echo
from tools.demo.postgres import Postgres, embedded_postgres


@pytest.fixture(scope="session")
def cloud() -> Iterator[LocalCloud]:
    """The local cloud without faults; it reaches every server of this machine."""
    with LocalCloud(TEMPLATE, parameters=PARAMETERS) as running:
        yield running
        assert running.denials() == [], "template.yaml's policies do not allow what the functions do"


@pytest.fixture(scope="module")
def sick() -> Iterator[LocalCloud]:
    """A cloud of the module's own, whose faults come and go."""
    with LocalCloud(TEMPLATE, parameters=PARAMETERS) as running:
        yield running


@pytest.fixture(scope="module")
def target() -> Iterator[tuple[str, int]]:
    """A server that sends back what it gets."""
    with Server(echo) as address:
        yield address


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A database, whose tables the tests name apart."""
    with embedded_postgres() as server:
        yield server


@pytest.fixture
def dialer(cloud: LocalCloud) -> Iterator[Dialer]:
    """A dialer of the shared cloud, whose connections share relays."""
    with dialer_of(cloud, connections_per_relay=32) as made:
        yield made


@pytest.fixture
def own_dialer(cloud: LocalCloud) -> Iterator[Dialer]:
    """One that gives each connection a relay of its own: for what a session of one connection does."""
    with dialer_of(cloud, **OWN.options) as made:
        yield made


@pytest.fixture(params=KINDS, ids=str)
def kind(request: pytest.FixtureRequest) -> Kind:
    """Either kind of dialer, in turn."""
    found: Kind = request.param
    return found


@pytest.fixture
def either_dialer(cloud: LocalCloud, kind: Kind) -> Iterator[Dialer]:
    """One of either kind; a relay that carries nothing ends at once."""
    with dialer_of(cloud, **kind.options) as made:
        yield made
