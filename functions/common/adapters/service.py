"""One service of AWS's: signed requests over kept connections, tried again where that helps.

What botocore's client does in its standard retry mode, for a thirtieth of its import: three tries, pauses
that double and are drawn at random, and a quota, so that while the service is down not each request is made
three times. A request whose answer was lost is made again: whoever makes it has to bear its being done twice.

What botocore would do besides, and nothing here asks for: other sources of credentials than the environment,
proxies, endpoints for FIPS or IPv6 alone (``AWS_ENDPOINT_URL_*`` names them). Neither corrects the clock;
Lambda does.

Source: AWS SDKs and tools reference guide, "Retry behavior", standard mode; botocore's ``retries`` for which
errors count; DynamoDB developer guide, "DynamoDB low-level API".
"""

from __future__ import annotations

import base64
import http.client
import json
import random
import ssl
import time
import zlib
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, Protocol

from functions.common.adapters.endpoints import Origin
from functions.common.adapters.pool import ConnectionPool, Reply
from functions.common.adapters.sigv4 import Signer

#: In seconds; with every try, a call ends within a handler's timeout (template.yaml: 20 s).
READ_TIMEOUT: Final = 3.0
TRIES: Final = 3

#: Longest pause before the second try, in seconds: after a failure, and where the service is asked for too
#: much. Before the third it is twice as long.
PAUSE: Final = 0.05
THROTTLED_PAUSE: Final = 1.0

#: What the quota holds at first, and at most; what a further try takes of it, and gives back if it succeeds;
#: what a request that needed none gives back.
QUOTA: Final = 500
COST: Final = 5
GAIN: Final = 1

#: Errors that are over in a moment.
_THROTTLED: Final = frozenset(
    {
        "BandwidthLimitExceeded",
        "LimitExceededException",
        "PriorRequestNotComplete",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "SlowDown",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
        "TransactionInProgressException",
    }
)
_TRANSIENT: Final = frozenset({"RequestTimeout", "RequestTimeoutException"})
_TRANSIENT_STATUSES: Final = frozenset({500, 502, 503, 504})


class ServiceError(Exception):
    """The service has refused, at last. Never leaves the adapters.

    Attributes:
        code: AWS's name of the error, such as ``ResourceNotFoundException``; the status where there is none.
        details: What else the answer's JSON said.
    """

    def __init__(self, code: str, details: Mapping[str, Any]) -> None:
        super().__init__(code)
        self.code = code
        self.details = details


class NoAnswerError(Exception):
    """The service was not reached, or has not answered, so it may be done. Never leaves the adapters."""


class _Failure(NamedTuple):
    """A try in vain.

    Attributes:
        error: What to raise if it was the last.
        pause: Longest pause before another try, in seconds; 0 if none can help.
    """

    error: Exception
    pause: float


class Service:
    """A service. Safe to use from several threads.

    Args:
        endpoint: Its URL.
        signer: Signs the requests.
        tls: Gives the TLS settings; asked if the endpoint is https.
        timeout: Longest wait for an answer, in seconds; connecting has a limit of its own.
        sleep: Waits some seconds between two tries.
        rng: Draws the pauses.
        clock: Wall clock, for signatures.

    Raises:
        ConfigError: If the endpoint is no http or https URL.
    """

    def __init__(
        self,
        endpoint: str,
        signer: Signer,
        *,
        tls: Callable[[], ssl.SSLContext],
        timeout: float = READ_TIMEOUT,
        sleep: Callable[[float], None] = time.sleep,
        rng: random.Random = random.SystemRandom(),  # noqa: B008 - without state
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._origin = origin = Origin(endpoint)
        self._signer = signer
        self._sleep = sleep
        self._rng = rng
        self._clock = clock
        self._quota = QUOTA  # threads that meet here may miscount by one: it is no matter
        self._connections = ConnectionPool(
            origin.host, origin.port, tls=tls() if origin.secure else None, timeout=timeout
        )

    def post(self, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """POST until it is answered, :data:`TRIES` times at most; returns an answer of status 2xx.

        Args:
            path: From the endpoint's own on, escaped, as :meth:`Signer.sign` wants it.
            headers: But ``Host``, and those of the signature.
            body: The whole of it.

        Raises:
            ServiceError: Another status.
            NoAnswerError: No answer, or a damaged one.

        Blocking: for the timeouts, and the pauses between.
        """
        path = self._origin.path + path
        attempt = 1
        while True:
            outcome = self._attempt(path, headers, body)
            if isinstance(outcome, Reply):
                self._quota = min(QUOTA, self._quota + (COST if attempt > 1 else GAIN))
                return outcome
            if not outcome.pause or attempt == TRIES or self._quota < COST:
                raise outcome.error
            self._sleep(self._rng.random() * outcome.pause * 2 ** (attempt - 1))
            self._quota -= COST
            attempt += 1

    def close(self) -> None:
        """Close the kept connections; a later request makes new ones."""
        self._connections.close()

    def _attempt(self, path: str, headers: Mapping[str, str], body: bytes) -> Reply | _Failure:
        signed = self._signer.sign(
            "POST", path, {"Host": self._origin.authority, **headers}, body, self._clock()
        )
        try:
            reply = self._connections.request("POST", path, body, signed)
        except (OSError, http.client.HTTPException) as exc:
            return _Failure(NoAnswerError(f"{type(exc).__name__}: {exc}"), PAUSE)
        if not _is_whole(reply):
            return _Failure(NoAnswerError("its answer was damaged on the way"), PAUSE)
        if 200 <= reply.status < 300:
            return reply
        error = _read_error(reply)
        if error.code in _THROTTLED:
            return _Failure(error, THROTTLED_PAUSE)
        passes = error.code in _TRANSIENT or reply.status in _TRANSIENT_STATUSES
        return _Failure(error, PAUSE if passes else 0.0)


class Operations(Protocol):
    """What a service can do, as :class:`JsonService`; tests give others."""

    def call(self, operation: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """Do one operation."""


class JsonService:
    """A service whose operations take JSON and give JSON: DynamoDB, Secrets Manager.

    Args:
        service: The service.
        target: What the header ``X-Amz-Target`` puts before an operation: ``DynamoDB_20120810``.
        version: Of the protocol: ``1.0`` or ``1.1``.
    """

    def __init__(self, service: Service, target: str, version: str) -> None:
        self._service = service
        self._target = target
        self._type = f"application/x-amz-json-{version}"

    def call(self, operation: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """Do one operation, such as ``GetItem``, and return its answer.

        In both, an attribute of DynamoDB's type B is bytes; one of type BS is not known here.

        Raises:
            ServiceError: It was refused.
            NoAnswerError: There was no answer, after all tries: it may be done.

        Blocking: as :meth:`Service.post`.
        """
        body = json.dumps(arguments, separators=(",", ":"), default=_encode_bytes).encode("ascii")
        headers = {"Content-Type": self._type, "X-Amz-Target": f"{self._target}.{operation}"}
        reply = self._service.post("/", headers, body)
        answer = _read_json(reply.body)
        if answer is None:
            raise NoAnswerError("its answer is no JSON object")
        return answer


def _is_whole(reply: Reply) -> bool:
    """Whether the body is what DynamoDB has sent; other services send no checksum."""
    checksum = reply.headers.get("x-amz-crc32")
    return checksum is None or checksum == str(zlib.crc32(reply.body))


def _read_error(reply: Reply) -> ServiceError:
    details = _read_json(reply.body) or {}
    # Lambda names the error in a header, the others in the body; either may add a namespace or an address.
    named = reply.headers.get("x-amzn-ErrorType") or details.get("__type") or details.get("code")
    code = str(named or "").partition(":")[0].rpartition("#")[2]
    return ServiceError(code or str(reply.status), details)


def _read_json(body: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(body, object_hook=_decode_bytes)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _encode_bytes(value: object) -> str:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    raise TypeError(f"{type(value).__name__} cannot be sent")


def _decode_bytes(found: dict[str, Any]) -> dict[str, Any]:
    # An attribute that is *named* B holds an object here, no text.
    if len(found) == 1 and isinstance(text := found.get("B"), str):
        return {"B": base64.b64decode(text)}
    return found
