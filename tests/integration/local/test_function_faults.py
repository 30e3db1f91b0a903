"""Faults of functions, in real processes: they die, hang, start cold, and read a wrong clock."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest

from emissary_local.errors import UnknownFunctionError
from emissary_local.faults import FaultEngine, Faults, Site
from emissary_local.ports import InvocationResult, InvocationStatus
from tests.helpers.patience import HANG
from tests.helpers.virtual_time import Advance, run_stepped
from tests.integration.local.lambda_harness import LambdaHarness, run, running_lambda, spec

CLOCKS = """
import datetime, time
from datetime import datetime as captured
from time import time as now
import botocore.auth, email.utils

def clocks(event, context):
    return {
        "time": time.time(), "captured": now(), "ns": time.time_ns() / 1e9, "gmtime": time.mktime(time.gmtime()),
        "datetime": datetime.datetime.now(datetime.timezone.utc).timestamp(), "by name": captured.now().timestamp(),
        "utcnow": captured.utcnow().replace(tzinfo=datetime.timezone.utc).timestamp(),
        "http": email.utils.parsedate_to_datetime(email.utils.formatdate(usegmt=True)).timestamp(),
        "left": context.get_remaining_time_in_millis() / 1000, "same": isinstance(captured(2026, 1, 1), datetime.datetime),
        "strftime": datetime.datetime.strptime(time.strftime("%Y%m%d%H%M%S"), "%Y%m%d%H%M%S").timestamp(),
    }

def work(event, context):
    with open(event["file"], "a") as file:
        file.write("x")
    return {}
"""  # noqa: E501


def write_functions(directory: Path) -> None:
    (directory / "clocks.py").write_text(CLOCKS)


async def work(harness: LambdaHarness, directory: Path) -> tuple[InvocationResult, int]:
    """Invoke once; the result, and how often the work was done."""
    file = directory / "done"
    file.unlink(missing_ok=True)
    result = await harness.service.invoke("F", json.dumps({"file": str(file)}).encode())
    return result, len(file.read_text()) if file.exists() else 0


def test_a_crash_comes_before_or_after_the_work_and_is_an_exit_error(tmp_path: Path) -> None:
    write_functions(tmp_path)

    async def body() -> None:
        engine = FaultEngine(Faults(seed=2, crash=1.0, crash_seconds=0.001))
        function = spec("work", tmp_path, handler_path="clocks.work")
        async with running_lambda(tmp_path, function, faults=engine) as harness:
            done = set()
            for _ in range(12):
                result, count = await work(harness, tmp_path)
                assert result.status is InvocationStatus.FUNCTION_ERROR
                assert b"Runtime.ExitError" in result.payload
                assert b"signal: killed" in result.payload
                done.add(count)
            assert done == {0, 1}
            assert engine.counts == {"crash": 12}
            engine.replace(Faults())
            assert (await work(harness, tmp_path))[0].status is InvocationStatus.OK

    run(body)


def test_an_invocation_hangs_until_its_timeout_with_its_work_done_or_not(tmp_path: Path) -> None:
    write_functions(tmp_path)

    async def body(advance: Advance) -> None:
        faults = Faults(seed=2, invoke_hang=1.0)
        rng = FaultEngine(faults).rng(Site.INVOCATION, "F")
        before = [rng.triggers("invoke_hang") and rng.coin("invoke_hang") for _ in range(6)]
        assert set(before) == {True, False}
        engine, log = FaultEngine(faults), tmp_path / "F.log"
        log.touch()
        function = spec("work", tmp_path, handler_path="clocks.work", timeout=900.0)
        async with running_lambda(tmp_path, function, faults=engine) as harness:
            for number, hangs_before_its_work in enumerate(before, start=1):
                ended = asyncio.ensure_future(work(harness, tmp_path))
                # It is given its event as soon as it has started, and each kill makes a new one start.
                while log.read_text().count("INIT_REPORT") < number:
                    await asyncio.sleep(0)
                while not hangs_before_its_work and not (tmp_path / "done").exists():
                    await asyncio.sleep(0)
                await advance(899)
                assert not ended.done()
                await advance(1)
                result, count = await ended
                assert result.status is InvocationStatus.TIMEOUT
                assert count == (0 if hangs_before_its_work else 1)
            assert engine.counts == {"invoke_hang": 6}

    run_stepped(body)


def test_faults_of_functions_spare_the_others(tmp_path: Path) -> None:
    async def body() -> None:
        engine = FaultEngine(Faults(crash=1.0, functions=("F",)))
        specs = (spec("echo", tmp_path), spec("echo", tmp_path, logical_id="G"))
        async with running_lambda(tmp_path, *specs, faults=engine) as harness:
            assert (await harness.service.invoke("F", b"{}")).status is InvocationStatus.FUNCTION_ERROR
            assert (await harness.service.invoke("G", b"{}")).status is InvocationStatus.OK

    run(body)


def test_a_cold_start_passes_over_the_warm_environment(tmp_path: Path) -> None:
    async def body() -> None:
        engine = FaultEngine()
        async with running_lambda(tmp_path, spec("who", tmp_path), faults=engine) as harness:
            warm = (await harness.call({}))["pid"]
            assert (await harness.call({}))["pid"] == warm
            engine.replace(Faults(cold_start=1.0, cold_start_seconds=0.01))
            cold = await harness.call({})
            assert cold["pid"] != warm
            assert cold["count"] == 1
            assert engine.counts == {"cold_start": 1}

    run(body)


async def until_idle(harness: LambdaHarness, environments: int) -> None:
    """Retire idle environments until ``environments`` of them have been."""
    async with asyncio.timeout(HANG):
        gone = 0
        while gone < environments:
            gone += harness.service.retire("F")
            await asyncio.sleep(0.002)


def test_retired_environments_are_replaced_by_new_ones(tmp_path: Path) -> None:
    async def body() -> None:
        async with running_lambda(tmp_path, spec("slow", tmp_path)) as harness:
            before = {
                each["pid"]
                for each in await asyncio.gather(*(harness.call({"seconds": 0.2}) for _ in range(3)))
            }
            await until_idle(harness, len(before))
            after = {
                each["pid"]
                for each in await asyncio.gather(*(harness.call({"seconds": 0.2}) for _ in range(3)))
            }
            assert not before & after

    run(body)


def test_running_invocations_are_killed_on_demand(tmp_path: Path) -> None:
    async def body() -> None:
        engine = FaultEngine()
        async with running_lambda(tmp_path, spec("slow", tmp_path), faults=engine) as harness:
            running = asyncio.ensure_future(harness.service.invoke("F", b'{"seconds": 60}'))
            async with asyncio.timeout(HANG):
                while not harness.service.crash("F"):
                    await asyncio.sleep(0.002)
            assert (await running).status is InvocationStatus.FUNCTION_ERROR
            assert engine.counts == {"crash": 1}
            with pytest.raises(UnknownFunctionError, match="no function 'Nobody'"):
                harness.service.crash("Nobody")

    run(body)


@pytest.mark.parametrize("skew", [-7200.0, 86_400.0])
def test_a_shifted_function_reads_a_wrong_clock_everywhere(tmp_path: Path, skew: float) -> None:
    write_functions(tmp_path)

    async def body() -> None:
        engine = FaultEngine(Faults(skew_seconds=skew))
        function = spec("clocks", tmp_path, handler_path="clocks.clocks", timeout=900.0)
        async with running_lambda(tmp_path, function, faults=engine) as harness:
            began = time.time()
            read = await harness.call({})
            ended = time.time()
            assert 0 < read.pop("left") <= 900.0  # the deadline is in the same time
            assert read.pop("same") is True
            for name, value in read.items():
                assert began - 1 <= value - skew <= ended, name  # some are of whole seconds

    run(body)


def test_environments_clocks_differ_within_the_spread(tmp_path: Path) -> None:
    write_functions(tmp_path)

    async def body() -> None:
        engine = FaultEngine(Faults(skew_spread=100.0))
        function = spec("clocks", tmp_path, handler_path="clocks.clocks")
        async with running_lambda(tmp_path, function, faults=engine, fresh_environments=True) as harness:
            least, most = [], []  # by how much each clock may be off, whenever it was read in its call
            for _ in range(4):
                began = time.time()
                read = (await harness.call({}))["time"]
                least.append(read - time.time())
                most.append(read - began)
            assert all(each <= 100 for each in least)
            assert all(each >= -100 for each in most)
            assert max(least) > min(most), "they differ"

    run(body)
