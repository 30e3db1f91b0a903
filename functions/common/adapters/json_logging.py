"""Makes the functions' log lines JSON, as Powertools for AWS Lambda writes them.

Only its formatter: the ``Logger`` class around it adds decorators that log events, which ours may not, since
a relay's event holds tokens.
"""

from __future__ import annotations

import logging
import sys
from typing import Final

from aws_lambda_powertools.logging.formatter import LambdaPowertoolsFormatter

from functions.common.logs import NAME

#: The field ``service`` of every line.
_SERVICE: Final = "emissary"


def use_json(level: str, *, function: str = "") -> None:
    """Send the functions' log to standard output, one JSON object a line. Idempotent.

    Args:
        level: Least severe level to log.
        function: The function's name, put on every line.
    """
    logger = logging.getLogger(NAME)
    logger.setLevel(level)
    # Lambda's own handler sits on the root logger and would write every line a second time.
    logger.propagate = False
    # With the log format JSON, Lambda gives that logger its own level: DEBUG, perhaps, at which hpack logs
    # all that it reads.
    logging.getLogger().setLevel(logging.WARNING)
    if any(isinstance(handler.formatter, LambdaPowertoolsFormatter) for handler in logger.handlers):
        return
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(LambdaPowertoolsFormatter(service=_SERVICE, function=function or None, utc=True))
    logger.addHandler(handler)
