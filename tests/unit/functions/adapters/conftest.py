"""A DynamoDB of the test run's own, on a port the system chose."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import botocore.session
import pytest
import werkzeug.serving
from botocore.config import Config
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.dynamodb.models import dynamodb_backends
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

from functions.common.adapters.clients import Aws
from functions.common.adapters.store import DynamoSessionStore
from functions.common.adapters.trust import trust
from functions.common.ports import SessionStore
from tests.helpers.fakes import FakeStore
from tests.helpers.patience import HANG
from tests.helpers.sam_template import source

REGION = "eu-central-1"
TABLE = "sessions"
SLOTS = "slots"

Wsgi = Callable[..., Iterable[bytes]]


class Dynamo:
    """A moto server in a thread that handles one request at a time.

    Attributes:
        lose_answers: So many of the next requests are carried out, and then answered with status 500.
        conflicts: So many of the next requests meet another transaction.
        requests: Requests seen.
    """

    def __init__(self) -> None:
        self.lose_answers = 0
        self.conflicts = 0
        self.requests = 0
        self._session = botocore.session.Session()
        self._application: Wsgi = DomainDispatcherApplication(create_backend_app)
        self._server = werkzeug.serving.make_server("127.0.0.1", 0, self._answer, request_handler=_Quiet)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, name="moto")
        self._thread.start()
        client = self.client()
        for name, logical_id in ((TABLE, "SessionTable"), (SLOTS, "SlotTable")):
            properties = source()["Resources"][logical_id]["Properties"]
            shape = {each: properties[each] for each in ("BillingMode", "AttributeDefinitions", "KeySchema")}
            if name not in _tables():
                client.create_table(TableName=name, **shape)
        client.close()  # the server serves one connection at a time

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join(HANG)
        self._server.server_close()

    def aws(self) -> Aws:
        """What the handlers call it with."""
        environ = {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "example",
            "AWS_SECRET_ACCESS_KEY": "example",
        }
        return Aws(environ, REGION, trust)

    def client(self, service: str = "dynamodb") -> Any:
        """The SDK's own, for what a test does beside the handlers."""
        return self._session.create_client(
            service,
            region_name=REGION,
            endpoint_url=self.url,
            aws_access_key_id="example",
            aws_secret_access_key="example",
            config=Config(retries={"total_max_attempts": 3, "mode": "standard"}),
        )

    def _answer(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        self.requests += 1
        if self.conflicts:
            self.conflicts -= 1
            environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
            transaction = environ["HTTP_X_AMZ_TARGET"].endswith("TransactWriteItems")
            return _fail(start, "400 Bad Request", _CANCELLED if transaction else _CONFLICT)
        if not self.lose_answers:
            return self._application(environ, start)
        self.lose_answers -= 1
        for _ in self._application(environ, lambda *_: None):
            pass
        return _fail(start, "500 Internal Server Error", b'{"__type":"InternalServerError"}')


def _tables() -> dict[str, Any]:
    """Those of every server in this process: moto keeps them in one place."""
    found: dict[str, Any] = dynamodb_backends[DEFAULT_ACCOUNT_ID][REGION].tables
    return found


_CONFLICT = b'{"__type":"com.amazonaws.dynamodb.v20120810#TransactionConflictException"}'
_CANCELLED = (
    b'{"__type":"com.amazonaws.dynamodb.v20120810#TransactionCanceledException",'
    b'"CancellationReasons":[{"Code":"TransactionConflict"},{"Code":"None"}]}'
)


def _fail(start: Callable[..., Any], status: str, body: bytes) -> Iterable[bytes]:
    start(status, [("Content-Type", "application/x-amz-json-1.0"), ("Content-Length", str(len(body)))])
    return [body]


class _Quiet(werkzeug.serving.WSGIRequestHandler):
    def log(self, *_: Any, **__: Any) -> None:
        """Requests are not for the test's output."""


@pytest.fixture(scope="session")
def dynamo_server() -> Iterator[Dynamo]:
    server = Dynamo()
    try:
        yield server
    finally:
        server.close()


@pytest.fixture
def dynamo(dynamo_server: Dynamo) -> Iterator[Dynamo]:
    """The template's two tables, empty."""
    try:
        yield dynamo_server
    finally:
        dynamo_server.lose_answers = dynamo_server.conflicts = 0
        for table in _tables().values():
            table.items.clear()  # by requests it would take a tenth of the tests' time


@pytest.fixture
def real(dynamo: Dynamo) -> Iterator[DynamoSessionStore]:
    aws = dynamo.aws()
    yield DynamoSessionStore(aws.dynamodb, TABLE, SLOTS, sleep=lambda _seconds: None)
    aws.close()


@pytest.fixture(params=["fake", "dynamo"])
def store(request: pytest.FixtureRequest) -> SessionStore:
    """The fake and DynamoDB's adapter in turn: they keep one contract."""
    if request.param == "fake":
        return FakeStore()
    found: DynamoSessionStore = request.getfixturevalue("real")
    return found
