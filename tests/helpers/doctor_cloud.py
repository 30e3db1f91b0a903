"""The doctor sent out on the local cloud, and what he told."""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from emissary_lib import Key, LocalCloud
from emissary_lib.cli.doctor import run_doctor
from emissary_lib.protocol.auth.keys import format_keys
from emissary_lib.protocol.targets.allow_list import Target
from emissary_local import Faults
from tests.helpers.cloudside import DIAL

#: Timeout of a rung that a test lets run out, in seconds: more than a cold start, less than patience.
SHORT = 4.0


class Told:
    """What the doctor said, as its JSON has it."""

    def __init__(self, status: int, text: str) -> None:
        self.status = status
        self.report: dict[str, Any] = json.loads(text)
        self.rungs: dict[str, dict[str, Any]] = {each["rung"]: each for each in self.report["rungs"]}

    def broke(self) -> tuple[str | None, int]:
        return self.report["broken_at"], self.status

    def __getitem__(self, rung: str) -> str:
        return str(self.rungs[rung]["status"])

    def fact(self, rung: str) -> str:
        return str(self.rungs[rung]["fact"])

    def remedy(self, rung: str) -> str:
        return str(self.rungs[rung]["remedy"])


def ask(
    url: str, key: Key, target: tuple[str, int] | None = None, *, timeout: float = DIAL, greet: str = "auto"
) -> Told:
    out = io.StringIO()
    environ = {"EMISSARY_URL": url, "EMISSARY_AUTH_KEYS": format_keys([key])}
    made = Target(*target) if target else None
    status = run_doctor(
        made, environ=environ, out=out, greet=greet, timeout=timeout, json_line=True, env_file="no.env"
    )
    return Told(status, out.getvalue())


@contextmanager
def faulty(cloud: LocalCloud, **faults: Any) -> Iterator[None]:
    """Faults in force, and gone afterwards; the same ones whatever test came before.

    With a seed that is in force already, decisions would run on.
    """
    cloud.set_faults(Faults(seed=zlib.crc32(repr(faults).encode()), **faults))
    try:
        yield
    finally:
        cloud.set_faults(Faults())
