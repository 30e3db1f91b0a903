"""A Lambda service with functions written on the spot, for the tests of this directory."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from emissary_local.billing.meter import Meter
from emissary_local.lambda_.forkserver import ForkServer
from emissary_local.lambda_.service import LambdaService
from emissary_local.lambda_.variables import Endpoints, Identities
from emissary_local.template.specs import FunctionSpec
from tests.helpers.patience import HANG

HANDLERS = '''
import os, sys, time, json
loaded = [name for name in sys.modules if name.split(".")[0] in ("emissary_lib", "functions")]
count = 0

def echo(event, context):
    return event

def who(event, context):
    global count
    count += 1
    return {"pid": os.getpid(), "count": count, "request_id": context.aws_request_id}

def slow(event, context):
    time.sleep(event["seconds"])
    return {"pid": os.getpid()}

def work(event, context):
    """Use so much of a processor; how long that took, and how much it was in the end."""
    began, used = time.monotonic(), time.process_time()
    while time.process_time() < used + event["seconds"]:
        pass
    return {"took": time.monotonic() - began, "used": time.process_time() - used}

def meet(event, context):
    """Return once so many processes are here at the same time."""
    open(os.path.join(event["at"], str(os.getpid())), "w").close()
    while len(os.listdir(event["at"])) < event["count"]:
        time.sleep(0.005)
    return {"pid": os.getpid()}

def open_files():
    links = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink("/proc/self/fd/" + fd))
        except OSError:
            pass  # the listing itself
    return sorted(links)

def look(event, context):
    return {
        "environ": dict(os.environ), "cwd": os.getcwd(), "path": sys.path[0], "loaded": loaded,
        "arn": context.invoked_function_arn, "left": context.get_remaining_time_in_millis(),
        "name": context.function_name, "memory": context.memory_limit_in_mb,
        "files": open_files(), "trace": os.environ["_X_AMZN_TRACE_ID"],
        "sid": os.getsid(0), "pgid": os.getpgid(0), "nice": os.nice(0), "pid": os.getpid(),
    }

def boom(event, context):
    raise ValueError("no such luck")

def leave(event, context):
    os._exit(event["status"])

def big(event, context):
    return "x" * event["size"]

def tick(event, context):
    """Start a thread that ticks into a file, and return."""
    import threading
    def ticking():
        while True:
            with open(event["file"], "a") as file:
                file.write("x")
            time.sleep(0.005)
    threading.Thread(target=ticking, daemon=True).start()
    return {"pid": os.getpid()}
'''


def spec(handler: str, task_root: Path, **changes: Any) -> FunctionSpec:
    """A function ``F`` with ``handler`` of the module ``app``."""
    settings: dict[str, Any] = {
        "logical_id": "F", "name": "f", "arn": "arn:aws:lambda:us-east-1:123456789012:function:f",
        "handler": f"app.{handler}", "runtime": "python3.13", "task_root": task_root, "timeout": HANG,
        "memory": 256, "environment": {"COLOUR": "blue"},
    }  # fmt: skip
    if "handler_path" in changes:
        changes["handler"] = changes.pop("handler_path")
    return FunctionSpec(**{**settings, **changes})


class LambdaHarness:
    """One running service, its meter and its logs."""

    def __init__(self, service: LambdaService, meter: Meter, logs: Path) -> None:
        self.service = service
        self.meter = meter
        self.logs = logs

    async def call(self, event: Any, function: str = "F") -> Any:
        """Invoke and decode the answer."""
        result = await self.service.invoke(function, json.dumps(event).encode())
        return json.loads(result.payload)


@contextlib.asynccontextmanager
async def running_lambda(
    directory: Path, *specs: FunctionSpec, **options: Any
) -> AsyncIterator[LambdaHarness]:
    """Start a service for ``specs``; its processes are gone at the end."""
    (directory / "app.py").write_text(HANDLERS)
    functions = {each.logical_id: each for each in specs}
    meter = Meter()
    endpoints = Endpoints(
        "http://127.0.0.1:1", "http://127.0.0.1:2/dev", "ws://127.0.0.1:2/dev", url_variables=("SOCKET_URL",)
    )
    with (directory / "fork_server.log").open("wb") as log:
        fork_server = ForkServer(log)
        service = LambdaService(
            functions, fork_server=fork_server, meter=meter, identities=Identities.draw(functions),
            endpoints=lambda: endpoints, logs=directory, **options,
        )  # fmt: skip
        await fork_server.start()
        try:
            yield LambdaHarness(service, meter, directory)
        finally:
            await service.close()
            await fork_server.close()


def run(test: Callable[[], Awaitable[None]]) -> None:
    """Run an asynchronous test body."""

    async def bounded() -> None:
        await asyncio.wait_for(test(), HANG)

    asyncio.run(bounded())
