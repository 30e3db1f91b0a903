"""No text of the other side, whichever it is, writes lines of its own or moves the cursor of a terminal."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from botocore.exceptions import ClientError

from emissary_lib.aws import aws_errors
from emissary_lib.doctor.network import _common_name
from emissary_lib.doctor.service_probes import POSTGRES
from emissary_lib.exceptions import LinkClosedError, OperationError, reset_error
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.opening.banner import Banner, parse_banner
from emissary_lib.protocol.targets.allow_list import Target
from emissary_lib.protocol.wire.health import Healthy, Usage
from emissary_lib.protocol.wire.payloads import Ended, Reset
from emissary_lib.transport.deadline import Deadline
from emissary_lib.transport.websocket import connect
from tests.helpers.patience import HANG
from tests.helpers.ws_server import WsServer

#: A title, a cleared screen, a forged line, C1's control sequence, a turned direction, separators.
EVIL = "\x1b]0;pwned\x07\x1b[2J\nemissary: well\r\x9b2K\u202etxt\u2066\u2028\t\x7fend"


def reset_reason() -> str:
    reset = Reset.decode(struct.pack(">H", Code.TARGET_RESET) + EVIL.encode())
    return str(reset_error(Target("db.internal", 5432), reset.code, reset.reason))


def ended_reason() -> str:
    return Ended.decode(Ended(Code.KILLED, 0, 0, EVIL).encode()).reason


def bridge_version() -> str:
    return Healthy.decode(Healthy(b"q" * 8, bytes(32), 2, Usage(), Usage(), (), EVIL).encode()).server_version


def bridge_fault() -> str:
    return Healthy.decode(Healthy(b"q" * 8, bytes(32), 2, Usage(), Usage(), (), "1", EVIL).encode()).fault


def banner() -> str:
    found = parse_banner(Banner(EVIL, EVIL, 2, bytes(32)).encode())
    assert found is not None
    return f"{found[0].server_software} {found[0].server_version}"


def greeting_of_a_target() -> str:
    fields = b"SFATAL\0M" + EVIL.encode() + b"\0\0"
    found = POSTGRES.read(b"E" + struct.pack(">I", 4 + len(fields)) + fields)
    assert found is not None
    return found.fact


def close_reason() -> str:
    with WsServer(lambda peer: peer.send_close(1011, EVIL)) as server:
        transport = connect(server.url, headers={}, deadline=Deadline(HANG))
        with pytest.raises(LinkClosedError) as caught:
            transport.recv(HANG)
        transport.release()
    assert caught.value.close_code == 1011
    return str(caught.value)


def certificate() -> str:
    return _common_name(((("commonName", EVIL),),))


def refusal_of_aws() -> str:
    with pytest.raises(OperationError) as caught, aws_errors():
        raise ClientError({"Error": {"Code": "Boom", "Message": EVIL}}, "Scan")
    return str(caught.value)


@pytest.mark.parametrize(
    "show",
    [reset_reason, ended_reason, bridge_version, bridge_fault, banner, greeting_of_a_target, close_reason,
     certificate, refusal_of_aws],
)  # fmt: skip
def test_it_is_one_line_of_printable_characters(show: Callable[[], str]) -> None:
    text = show()
    assert "pwned" in text
    assert "end" in text
    assert text.isprintable()
