"""Clients of AWS, with the profile and credentials of whoever runs this."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Final

from emissary_lib.exceptions import OperationError
from emissary_lib.protocol.wire.text import clean

#: Where the region stands in an ARN: ``arn:partition:service:region:account:resource``.
_REGION: Final = 3

#: For a connection and for an answer, in seconds: somebody waits at a terminal.
_TIMEOUT: Final = 5


@contextlib.contextmanager
def client(service: str, name: str, *, endpoint: str | None = None) -> Iterator[Any]:
    """A boto3 client, closed at the end.

    Args:
        service: As boto3 calls it.
        name: What the command works on; if it is an ARN, its region counts, else that of the profile.
        endpoint: Where to find the service instead of AWS's own address.

    Raises:
        ModuleNotFoundError: boto3 is not installed; it comes with ``emissary-lib[aws]``.
        OperationError: There is no region, or AWS refuses or does not answer: for the ``with`` block too.
    """
    import boto3  # not needed by the rest of the library
    from botocore.config import Config

    with aws_errors():
        session: Any = boto3.session.Session()
        made = session.client(
            service,
            region_name=_region(name),
            endpoint_url=endpoint,
            config=Config(
                connect_timeout=_TIMEOUT,
                read_timeout=_TIMEOUT,
                retries={"total_max_attempts": 3, "mode": "standard"},
            ),
        )
        with contextlib.closing(made):
            yield made


@contextlib.contextmanager
def aws_errors() -> Iterator[None]:
    """Turn boto3's errors in the ``with`` block into ours.

    Raises:
        OperationError: AWS refuses, was not asked, or does not answer.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as exc:
        error = exc.response["Error"]
        said = clean(f"{error.get('Code')}: {error.get('Message')}")
        raise OperationError(f"AWS refused {exc.operation_name}: {said}") from exc
    except BotoCoreError as exc:
        raise OperationError(
            f"AWS was not asked, or did not answer: {clean(str(exc))}; check the region (AWS_DEFAULT_REGION, "
            "or an ARN in place of a name) and the credentials (AWS_PROFILE)"
        ) from exc


def _region(name: str) -> str | None:
    parts = name.split(":")
    return parts[_REGION] or None if parts[0] == "arn" and len(parts) > _REGION else None
