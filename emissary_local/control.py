"""Commands to a running local cloud.

They come over the pipe from the process that started it, and from nowhere else: no function can reach them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from emissary_local.aws.iam.privileges import Privileges, as_json
from emissary_local.aws.secrets import SecretStore
from emissary_local.billing.meter import Meter
from emissary_local.errors import LocalCloudError
from emissary_local.faults import FaultEngine, Faults
from emissary_local.gateway.api import Gateway
from emissary_local.lambda_.service import LambdaService


class Commanded(Protocol):
    """What commands act on."""

    @property
    def meter(self) -> Meter:
        """Counts what AWS would bill."""

    @property
    def faults(self) -> FaultEngine:
        """What goes wrong on purpose."""

    @property
    def gateway(self) -> Gateway:
        """The WebSocket API."""

    @property
    def service(self) -> LambdaService:
        """The functions."""

    @property
    def privileges(self) -> Privileges:
        """What the functions may do."""

    @property
    def secrets(self) -> SecretStore:
        """Secrets Manager."""

    def update(self, settings: Mapping[str, Any], functions: Sequence[str]) -> None:
        """Put another version of some functions in place."""


def answer(cloud: Commanded, command: Mapping[str, Any]) -> dict[str, Any]:
    """Carry out one command.

    Args:
        cloud: The running cloud.
        command: ``command`` is one of ``meter``, ``cut`` (with ``side``, ``how``, ``which``), ``faults``
            (with the new ``faults``), ``crash`` and ``retire`` (with ``function``), ``timeout`` (with
            ``function``, ``seconds``), ``permissions``, ``denials``, ``withdraw`` (with ``function``,
            ``statement``), ``restore``, ``put_secret`` (with ``secret``, ``value``), ``update`` (with the
            new ``settings``, and ``functions``).

    Returns:
        What is to be sent back; ``error`` in words if it could not be carried out.
    """
    try:
        name = command.get("command")
        if name == "meter":
            return {
                "meter": json.loads(cloud.meter.snapshot().to_json()),
                "faults": dict(cloud.faults.counts),
            }
        if name == "cut":
            return {"count": cloud.gateway.disconnects.cut(command["side"], command["how"], command["which"])}
        if name == "faults":
            cloud.faults.replace(Faults.from_json(command["faults"]))
            return {}
        if name == "crash":
            return {"count": cloud.service.crash(command["function"])}
        if name == "retire":
            return {"count": cloud.service.retire(command["function"])}
        if name == "timeout":
            cloud.service.set_timeout(command["function"], command["seconds"])
            return {}
        if name == "permissions":
            return {"permissions": as_json(cloud.privileges.permissions())}
        if name == "denials":
            return {"denials": as_json(cloud.privileges.denials())}
        if name == "withdraw":
            cloud.privileges.withdraw(command["function"], command["statement"])
            return {}
        if name == "restore":
            cloud.privileges.restore()
            return {}
        if name == "put_secret":
            cloud.secrets.put(command["secret"], command["value"])
            return {}
        if name == "update":
            cloud.update(command["settings"], command["functions"])
            return {}
        return {"error": f"there is no command {name!r}"}
    except LocalCloudError as exc:
        return {"error": str(exc)}
