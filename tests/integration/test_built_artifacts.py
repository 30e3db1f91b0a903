"""The local cloud runs what would be deployed: the built artifacts, with the runtime's packages alone."""

from __future__ import annotations

import os
import pathlib
import shutil

import pytest

from emissary_lib.protocol.wire.frames import FrameType
from emissary_local import LocalCloud
from emissary_local.errors import LocalCloudError
from tests.helpers.local_cloud import DIAL, LINUX_ONLY, PARAMETERS, TEMPLATE, dialer_of
from tests.helpers.patience import HANG, wait_until
from tests.helpers.raw_dialer import RawDialer
from tests.helpers.servers import Server, echo

pytestmark = LINUX_ONLY


def test_bytes_come_back_through_the_built_artifacts(artifacts: pathlib.Path) -> None:
    data = os.urandom(300_000)
    with LocalCloud(TEMPLATE, parameters=PARAMETERS, artifacts=artifacts) as cloud:
        with dialer_of(cloud) as dialer, Server(echo) as target:
            with dialer.dial(target, DIAL) as sock:
                sock.settimeout(HANG)
                sock.sendall(data)
                got = bytearray()
                while len(got) < len(data) and (piece := sock.recv(65_536)):
                    got += piece
    assert bytes(got) == data
    assert list(artifacts.rglob("__pycache__")) == []


def test_what_an_artifact_lacks_is_not_found_elsewhere(
    artifacts: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """The virtual environment that runs the local cloud has websocket-client; Lambda has not."""
    broken = tmp_path / "build"
    shutil.copytree(artifacts, broken)
    shutil.rmtree(broken / "RelayFunction" / "websocket")
    with LocalCloud(TEMPLATE, parameters=PARAMETERS, artifacts=broken) as cloud:
        with Server(echo) as target, RawDialer(cloud.url, cloud.key) as raw:
            raw.send(FrameType.OPENING, raw.opening(target))
            wait_until(
                lambda: "websocket-client is not installed" in cloud.logs("RelayFunction"),
                "the relay's import error",
            )


def test_missing_artifacts_are_named_with_what_makes_them(tmp_path: pathlib.Path) -> None:
    cloud = LocalCloud(TEMPLATE, parameters=PARAMETERS, artifacts=tmp_path)
    with pytest.raises(LocalCloudError, match=r"no artifact of .*RelayFunction.*sam build"):
        cloud.start()
