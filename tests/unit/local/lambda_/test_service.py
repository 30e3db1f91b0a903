"""The Lambda service, with processes that the test starts and ends itself."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from emissary_local.billing.meter import Meter
from emissary_local.lambda_.environment import Environment
from emissary_local.lambda_.service import LambdaService
from emissary_local.lambda_.variables import Endpoints, Identities
from emissary_local.ports import InvocationStatus
from emissary_local.template.specs import FunctionSpec

SPEC = FunctionSpec(
    "F", "f", "arn:aws:lambda:us-east-1:123456789012:function:f", "app.handler", "python3.13",
    Path("/"), 60.0, 128, {},
)  # fmt: skip


class Forks:
    """A fork server that is asked, and forks nothing."""

    def __init__(self) -> None:
        self.asked: asyncio.Queue[Environment] = asyncio.Queue()

    def spawn(self, fork: Environment, *_: Any) -> None:
        self.asked.put_nowait(fork)


def test_environments_start_only_so_many_at_once(tmp_path: Path) -> None:
    async def body() -> None:
        forks: Any = Forks()
        service = LambdaService(
            {"F": SPEC}, fork_server=forks, meter=Meter(), identities=Identities.draw(["F"]),
            endpoints=lambda: Endpoints("http://a", "http://b/s", "ws://b/s"), logs=tmp_path, init_slots=2,
        )  # fmt: skip
        calls = [asyncio.ensure_future(service.invoke("F", b"{}")) for _ in range(4)]
        gave_up = asyncio.ensure_future(service.invoke("F", b"{}"))
        first = [await forks.asked.get() for _ in range(2)]
        for _ in range(10):
            await asyncio.sleep(0)
        assert forks.asked.empty()
        gave_up.cancel()
        for each in first:
            each.on_exit("it died in its init phase")
        for _ in range(2):
            (await forks.asked.get()).on_exit("it died too")
        assert {result.status for result in await asyncio.gather(*calls)} == {InvocationStatus.FUNCTION_ERROR}
        assert forks.asked.empty()
        await service.close()

    asyncio.run(asyncio.wait_for(body(), 60))
