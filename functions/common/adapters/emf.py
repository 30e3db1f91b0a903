"""Figures in CloudWatch's embedded metric format, as Powertools for AWS Lambda writes them.

Its provider alone, a fresh one for each line: the ``Metrics`` class around it gathers figures for the whole
process, and its decorator would write a line for each invocation, those of ``$default`` included.

Source: CloudWatch user guide, "Specification: Embedded metric format".
"""

from __future__ import annotations

import json
import logging
import sys
from typing import Final

from aws_lambda_powertools.metrics.provider.cloudwatch_emf.cloudwatch import AmazonCloudWatchEMFProvider

from functions.common.metrics import NAME, NAMESPACE

#: The dimension where POWERTOOLS_SERVICE_NAME, which template.yaml sets to the stack's name, is not there.
SERVICE: Final = "emissary"


class EmfFormatter(logging.Formatter):
    """Makes a record of ``metrics.put`` one line of embedded metric format.

    Args:
        service: The dimension ``service``.
    """

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """One line of JSON; ``record.figures`` has them by metric."""
        provider = AmazonCloudWatchEMFProvider(namespace=NAMESPACE, service=self._service)
        for metric, value in record.__dict__["figures"].items():
            provider.add_metric(name=metric.title, unit=metric.unit, value=value)
        return json.dumps(provider.serialize_metric_set(), separators=(",", ":"))


def use_emf(service: str) -> None:
    """Send the functions' figures to standard output, where Lambda's log takes them up. Idempotent.

    Args:
        service: The dimension ``service``; empty for :data:`SERVICE`.
    """
    logger = logging.getLogger(NAME)
    logger.setLevel(logging.INFO)
    # Lambda's own handler sits on the root logger and would write every line a second time.
    logger.propagate = False
    if any(isinstance(handler.formatter, EmfFormatter) for handler in logger.handlers):
        return
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(EmfFormatter(service or SERVICE))
    logger.addHandler(handler)
