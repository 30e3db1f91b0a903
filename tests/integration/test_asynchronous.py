"""asyncio through the whole stack: streams, and what the bridge records of a dial that is given up."""

from __future__ import annotations

import asyncio
from typing import Any

from emissary_lib import Dialer
from emissary_local import LocalCloud
from tests.helpers.local_cloud import DIAL, LINUX_ONLY, eventually, json_lines, relay_returned
from tests.helpers.servers import BlackHole
from tests.helpers.ws_server import noise

pytestmark = LINUX_ONLY


def test_streams_at_once_carry_all_bytes_and_end_well(
    cloud: LocalCloud, either_dialer: Dialer, target: tuple[str, int]
) -> None:
    sessions = []

    async def one() -> None:
        reader, writer = await either_dialer.open_connection(target, DIAL)
        sessions.append(either_dialer.session_of(writer).id)
        data = noise(200_000)
        writer.write(data)
        writer.write_eof()
        assert await reader.read() == data
        writer.close()
        await writer.wait_closed()

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(2):
                group.create_task(one())

    asyncio.run(main())
    assert {relay_returned(cloud, session) for session in sessions} == {"OK"}


def test_a_dial_that_is_cancelled_while_the_relay_connects_is_recorded_as_given_up(
    cloud: LocalCloud, own_dialer: Dialer
) -> None:
    def lines(message: str) -> list[dict[str, Any]]:
        said = {"message": message, "target": target, "key_id": cloud.key.key_id}
        return [line for line in json_lines(cloud) if said.items() <= line.items()]

    def launched() -> bool:
        # The door launches before the dialer is let in; and who gives up before that leaves without a word.
        return bool(lines("relay launched")) and cloud.meter.messages_in > before

    async def main() -> None:
        dial = asyncio.ensure_future(own_dialer.open_connection(target, None))
        await asyncio.to_thread(eventually, lambda: launched() or None, "the relay's launch, and the opening")
        dial.cancel()
        await asyncio.wait([dial])
        assert dial.cancelled()

    with BlackHole() as (host, port):
        target, before = f"{host}:{port}", cloud.meter.messages_in
        asyncio.run(main())
        (record,) = eventually(lambda: lines("session ended") or None, "the audit record")
    assert record["code"] == "DIALER_RESET"
