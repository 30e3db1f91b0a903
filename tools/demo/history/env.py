"""Run by Alembic. The caller hands an open connection over in ``config.attributes["connection"]``.

``config.attributes["applied"]``, if given, is called with each revision's line of history once it is applied.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from alembic import context

_connection = context.config.attributes["connection"]
_applied: Callable[[str], None] | None = context.config.attributes.get("applied")


def _tell(ctx: Any, step: Any, heads: Any, run_args: Any) -> None:
    if _applied is not None:
        _applied(f"{step.up_revision.revision} {step.up_revision.doc}")


context.configure(connection=_connection, transaction_per_migration=True, on_version_apply=_tell)
with context.begin_transaction():
    context.run_migrations()
