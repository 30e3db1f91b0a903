"""Execution environments are real processes under AWS's own runtime client."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from emissary_local.errors import LocalCloudError, UnknownFunctionError
from emissary_local.lambda_.cpu_share import PERIOD, PROCESSOR_MEMORY
from emissary_local.ports import InvocationStatus
from tests.helpers.patience import HANG
from tests.helpers.virtual_time import Advance, run_stepped
from tests.integration.local.lambda_harness import LambdaHarness, run, running_lambda, spec


async def stopped(pid: int) -> None:
    """Wait until every thread of a process has been stopped, as by SIGSTOP."""

    def states() -> set[str]:
        listings = Path(f"/proc/{pid}/task").glob("*/stat")
        return {each.read_text().rsplit(")", 1)[1].split()[0] for each in listings}

    async with asyncio.timeout(HANG):
        while states() != {"T"}:
            await asyncio.sleep(0)


async def meet(harness: LambdaHarness, place: Path, count: int) -> set[int]:
    """The processes of ``count`` invocations that all ran at the same time."""
    place.mkdir()
    event = {"at": str(place), "count": count}
    return {each["pid"] for each in await asyncio.gather(*(harness.call(event) for _ in range(count)))}


def test_large_event_comes_back_unchanged(tmp_path: Path) -> None:
    async def body() -> None:
        async with running_lambda(tmp_path, spec("echo", tmp_path)) as harness:
            event = {"body": "A" * 126_000, "umlaut": "ü"}
            assert await harness.call(event) == event
            assert harness.meter.snapshot().invocations == {"F": 1}
            assert harness.meter.snapshot().gb_seconds["F"] > 0

    run(body)


def test_environment_is_reused_and_stopped_between_invocations(tmp_path: Path) -> None:
    async def body() -> None:
        async with running_lambda(tmp_path, spec("who", tmp_path)) as harness:
            first = await harness.call({})
            await stopped(first["pid"])
            second = await harness.call({})
            assert second["pid"] == first["pid"]
            assert second["count"] == 2
            assert second["request_id"] != first["request_id"]

    run(body)


def test_thread_left_running_is_frozen_with_its_environment(tmp_path: Path) -> None:
    async def body() -> None:
        async with running_lambda(tmp_path, spec("tick", tmp_path)) as harness:
            ticks = tmp_path / "ticks"
            await stopped((await harness.call({"file": str(ticks)}))["pid"])
            before = ticks.stat().st_size
            async with asyncio.timeout(HANG):
                while ticks.stat().st_size == before:  # it goes on when its environment does
                    await harness.call({"file": str(tmp_path / "ticks of other threads")})

    run(body)


def test_concurrent_invocations_get_processes_of_their_own(tmp_path: Path) -> None:
    async def body() -> None:
        async with running_lambda(tmp_path, spec("meet", tmp_path)) as harness:
            assert len(await meet(harness, tmp_path / "place", 4)) == 4

    run(body)


def test_a_function_has_the_share_of_a_processor_that_comes_with_its_memory(tmp_path: Path) -> None:
    async def body() -> None:
        function = spec("work", tmp_path, memory=PROCESSOR_MEMORY)
        async with running_lambda(tmp_path, function, cpu_share=0.25) as harness:
            calls = [await harness.call({"seconds": 0.05}) for _ in range(4)]
        used = sum(each["used"] for each in calls)
        # It begins with what one period gives, and nobody may have looked during the last one.
        in_time = used - calls[-1]["used"] - 0.25 * PERIOD
        assert sum(each["took"] for each in calls) >= in_time / 0.25

    run(body)


def test_invocation_over_the_account_limit_is_throttled(tmp_path: Path) -> None:
    async def body() -> None:
        async with running_lambda(tmp_path, spec("slow", tmp_path), account_concurrency=2) as harness:
            payload = json.dumps({"seconds": 0.2}).encode()
            results = await asyncio.gather(*(harness.service.invoke("F", payload) for _ in range(3)))
            assert [each.status for each in results].count(InvocationStatus.THROTTLED) == 1
            assert (await harness.service.invoke("F", payload)).status is InvocationStatus.OK

    run(body)


def test_reserved_concurrency_limits_its_function_and_leaves_the_rest_to_others(tmp_path: Path) -> None:
    async def body() -> None:
        reserved = spec("slow", tmp_path, reserved_concurrency=1)
        other = spec("slow", tmp_path, logical_id="G")
        async with running_lambda(tmp_path, reserved, other, account_concurrency=2) as harness:
            payload = json.dumps({"seconds": 0.2}).encode()
            names = ("F", "F", "G", "G")
            results = await asyncio.gather(*(harness.service.invoke(name, payload) for name in names))
            ok, throttled = InvocationStatus.OK, InvocationStatus.THROTTLED
            assert [each.status for each in results] == [ok, throttled, ok, throttled]

    run(body)


def test_reserving_the_whole_account_is_refused(tmp_path: Path) -> None:
    async def body() -> None:
        specs = (spec("echo", tmp_path, reserved_concurrency=5), spec("echo", tmp_path, logical_id="G"))
        with pytest.raises(LocalCloudError, match="reserve 5 concurrent executions of the account's 5"):
            async with running_lambda(tmp_path, *specs, account_concurrency=5):
                pass

    run(body)


def test_function_over_its_timeout_is_killed_and_replaced(tmp_path: Path) -> None:
    async def body(advance: Advance) -> None:
        async with running_lambda(tmp_path, spec("meet", tmp_path, timeout=900.0)) as harness:
            (pid,) = await meet(harness, tmp_path / "alone", 1)
            place = tmp_path / "nobody comes"
            place.mkdir()
            running = asyncio.ensure_future(
                harness.service.invoke("F", json.dumps({"at": str(place), "count": 2}).encode())
            )
            while not (place / str(pid)).exists():
                await asyncio.sleep(0)
            await advance(900)
            result = await running
            assert result.status is InvocationStatus.TIMEOUT
            assert "Task timed out after 900.00 seconds" in json.loads(result.payload)["errorMessage"]
            assert await meet(harness, tmp_path / "another", 1) != {pid}
            assert "Task timed out after 900.00 seconds" in (tmp_path / "F.log").read_text()

    run_stepped(body)


def test_another_timeout_is_for_later_invocations_and_what_runs_keeps_its_own(tmp_path: Path) -> None:
    async def body() -> None:
        async with running_lambda(tmp_path, spec("meet", tmp_path, timeout=900.0)) as harness:
            (idle,) = await meet(harness, tmp_path / "alone", 1)
            place = tmp_path / "two"
            place.mkdir()
            first = asyncio.ensure_future(harness.call({"at": str(place), "count": 2}))
            async with asyncio.timeout(HANG):
                while not (place / str(idle)).exists():
                    await asyncio.sleep(0)
            harness.service.set_timeout("F", 800)
            second = await harness.call({"at": str(place), "count": 2})
            assert (await first)["pid"] == idle != second["pid"]
            assert await meet(harness, tmp_path / "afterwards", 1) == {second["pid"]}
            assert idle not in await meet(harness, tmp_path / "two more", 2)

    run(body)


def test_another_timeout_holds_at_once_though_an_environment_was_idle(tmp_path: Path) -> None:
    async def body(advance: Advance) -> None:
        async with running_lambda(tmp_path, spec("meet", tmp_path, timeout=900.0)) as harness:
            (idle,) = await meet(harness, tmp_path / "alone", 1)
            await stopped(idle)
            harness.service.set_timeout("F", 10)
            place = tmp_path / "nobody comes"
            place.mkdir()
            running = asyncio.ensure_future(
                harness.service.invoke("F", json.dumps({"at": str(place), "count": 2}).encode())
            )
            while not list(place.iterdir()):
                await asyncio.sleep(0)
            assert not (place / str(idle)).exists()
            await advance(10)
            result = await running
            assert result.status is InvocationStatus.TIMEOUT
            assert "Task timed out after 10.00 seconds" in json.loads(result.payload)["errorMessage"]

    run_stepped(body)


@pytest.mark.parametrize("seconds", [0, 1801])
def test_a_timeout_that_lambda_does_not_allow_is_refused(tmp_path: Path, seconds: int) -> None:
    async def body() -> None:
        async with running_lambda(tmp_path, spec("echo", tmp_path)) as harness:
            with pytest.raises(LocalCloudError, match=f"1 to 1800 seconds, not {seconds}"):
                harness.service.set_timeout("F", seconds)

    run(body)


def test_exit_in_mid_invocation_is_an_exit_error(tmp_path: Path) -> None:
    async def body() -> None:
        async with running_lambda(tmp_path, spec("leave", tmp_path)) as harness:
            result = await harness.service.invoke("F", b'{"status": 3}')
            assert result.status is InvocationStatus.FUNCTION_ERROR
            error = json.loads(result.payload)
            assert error["errorType"] == "Runtime.ExitError"
            assert error["errorMessage"].endswith("Runtime exited with error: exit status 3")

    run(body)


def test_exception_is_the_runtimes_error_json(tmp_path: Path) -> None:
    async def body() -> None:
        async with running_lambda(tmp_path, spec("boom", tmp_path)) as harness:
            result = await harness.service.invoke("F", b"{}")
            assert result.status is InvocationStatus.FUNCTION_ERROR
            error = json.loads(result.payload)
            assert (error["errorType"], error["errorMessage"]) == ("ValueError", "no such luck")
            assert "no such luck" in (tmp_path / "F.log").read_text()

    run(body)


def test_module_that_cannot_be_imported_is_an_init_error(tmp_path: Path) -> None:
    async def body() -> None:
        async with running_lambda(tmp_path, spec("echo", tmp_path, handler_path="absent.handler")) as harness:
            result = await harness.service.invoke("F", b"{}")
            assert result.status is InvocationStatus.FUNCTION_ERROR
            error = json.loads(result.payload)
            assert error["errorType"] == "Runtime.ImportModuleError"
            assert "absent" in error["errorMessage"]

    run(body)


def test_response_over_six_megabytes_is_an_error(tmp_path: Path) -> None:
    async def body() -> None:
        async with running_lambda(tmp_path, spec("big", tmp_path)) as harness:
            result = await harness.service.invoke("F", json.dumps({"size": 6_291_555}).encode())
            assert result.status is InvocationStatus.FUNCTION_ERROR
            assert json.loads(result.payload)["errorType"] == "Function.ResponseSizeTooLarge"
            result = await harness.service.invoke("F", json.dumps({"size": 6_291_554}).encode())
            assert (result.status, len(result.payload)) == (InvocationStatus.OK, 6_291_556)

    run(body)


def test_environment_has_what_lambda_gives_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_HOST", "x")

    async def body() -> None:
        async with running_lambda(tmp_path, spec("look", tmp_path, timeout=700.0)) as harness:
            seen = await harness.call({})
            environ = seen["environ"]
            assert "SECRET_OF_THE_HOST" not in environ
            assert "HOME" not in environ
            assert environ["COLOUR"] == "blue"
            assert environ["AWS_LAMBDA_FUNCTION_NAME"] == seen["name"] == "f"
            assert environ["AWS_REGION"] == environ["AWS_DEFAULT_REGION"] == "us-east-1"
            assert environ["AWS_ACCESS_KEY_ID"].startswith("ASIA")
            assert environ["AWS_SESSION_TOKEN"]
            assert environ["AWS_ENDPOINT_URL_DYNAMODB"] == "http://127.0.0.1:1"
            assert environ["SOCKET_URL"] == "ws://127.0.0.1:2/dev"
            assert seen["cwd"] == seen["path"] == environ["LAMBDA_TASK_ROOT"] == str(tmp_path)
            assert seen["loaded"] == [], "a module of ours was imported before the handler's"
            assert 0 < seen["left"] <= 700_000
            assert seen["arn"].endswith(":function:f")
            assert seen["memory"] == "256"
            assert seen["trace"].startswith("Root=1-")
            assert seen["pgid"] == seen["pid"]
            assert seen["sid"] not in (seen["pid"], os.getsid(0)), "one session for all environments"
            assert seen["nice"] > os.nice(0)
            # Nothing inherited: no pidfd, and no sockets but the runtime client's own (libcurl has a pair).
            sockets = [name for name in seen["files"] if name.startswith("socket:")]
            assert len(sockets) <= 3
            assert set(seen["files"]) - set(sockets) == {"/dev/null", str(tmp_path / "F.log")}

    run(body)


def test_fresh_environments_serve_one_invocation_each(tmp_path: Path) -> None:
    async def body() -> None:
        async with running_lambda(tmp_path, spec("who", tmp_path), fresh_environments=True) as harness:
            answers = [await harness.call({}) for _ in range(3)]
            assert len({answer["pid"] for answer in answers}) == 3
            assert {answer["count"] for answer in answers} == {1}

    run(body)


def test_unknown_function_is_named_with_the_known_ones(tmp_path: Path) -> None:
    async def body() -> None:
        async with running_lambda(tmp_path, spec("echo", tmp_path)) as harness:
            with pytest.raises(UnknownFunctionError, match="no function 'Nope'; it has: F"):
                await harness.service.invoke("Nope", b"{}")

    run(body)


def test_close_leaves_no_process(tmp_path: Path) -> None:
    async def body() -> None:
        async with running_lambda(tmp_path, spec("slow", tmp_path)) as harness:
            idle = (await harness.call({"seconds": 0}))["pid"]
            running = asyncio.ensure_future(harness.service.invoke("F", b'{"seconds": 60}'))
            await asyncio.sleep(0)
            await harness.service.close()
            assert (await running).status is InvocationStatus.FUNCTION_ERROR
            assert not Path(f"/proc/{idle}").exists()

    run(body)
