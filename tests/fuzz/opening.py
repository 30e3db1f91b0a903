"""The opening: SOCKS5 on both sides, the banner, and what bridge and dialer make of them."""

from __future__ import annotations

import random
from typing import Final

from emissary_lib.protocol.auth.macs import KeyRing, server_mac, socks_password
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.errors import AuthenticationError, RemoteProtocolError
from emissary_lib.protocol.opening.banner import Banner, parse_banner, parse_message
from emissary_lib.protocol.opening.exchange import OpeningAnswer, OpeningReader, OpeningState, evaluate
from emissary_lib.protocol.opening.local_socks import LocalSocks
from emissary_lib.protocol.opening.socks5 import ClientNegotiation, ServerEvent, ServerNegotiation
from emissary_lib.protocol.targets.allow_list import AllowList, Target
from tests.fuzz.auth import DATE, HOST, KEY, NONCE
from tests.fuzz.entry import pieces

_ALLOW: Final = AllowList.parse(
    '[{"host": "db.internal", "port": 5432}, {"host": "10.0.0.0/16", "port": 5432}]'
)
_MAC: Final = server_mac(KEY, date=DATE, nonce=NONCE, host=HOST)
_BANNER: Final = Banner("emissary-lambda", "0.1.0", 2, NONCE, _MAC).encode()

Served = tuple[list[ServerEvent], int, bytes, object, bool]


def serve(parts: list[bytes]) -> Served:
    """Feed a server; also after an error, which must come again and change nothing."""
    machine, events, failed = ServerNegotiation(), list[ServerEvent](), False
    for part in parts:
        machine.receive(part)
        try:
            while (event := machine.next_event()) is not None:
                assert not failed
                events.append(event)
        except RemoteProtocolError:
            failed = True
    return events, machine.used, machine.leftover, machine.state, failed


def ask(parts: list[bytes]) -> tuple[object, object, object, bytes] | None:
    """Feed a client; None for an error."""
    machine, left = ClientNegotiation(), b""
    try:
        for part in parts:
            left += part[machine.receive(part) :]
    except RemoteProtocolError:
        return None
    return machine.state, machine.code, machine.bound, left


def socks5_server(data: bytes) -> None:
    whole = serve([data])
    assert whole[1] + len(whole[2]) == len(data)
    assert serve(pieces(data, random.Random(data))) == serve([data] if data else [])


def socks5_client(data: bytes) -> None:
    assert ask(pieces(data, random.Random(data))) == ask([data] if data else [])


def serve_locally(parts: list[bytes]) -> tuple[Target | None, str, bytes]:
    """Feed the server for programs of this machine."""
    server, said = LocalSocks(), b""
    for part in parts:
        server.receive_data(part)
        said += server.data_to_send()
        assert not (server.target and server.refusal)
    return server.target, server.refusal, said


def local_socks(data: bytes) -> None:
    for stream in (data, b"\x05\x01\x00" + data):
        assert serve_locally(pieces(stream, random.Random(data))) == serve_locally([stream])


def banner(data: bytes) -> None:
    for text in (data, bytes([len(data) & 0x7F]) + data):
        try:
            found = parse_banner(text)
        except RemoteProtocolError:
            continue
        if found is None:
            assert len(text) < 512
            continue
        read, used = found
        assert parse_message(read.encode_message()) == read
        assert parse_banner(text[:used]) == found
        assert all(parse_banner(text[:end]) is None for end in range(0, used, 1 + used // 8))


def _answer(fragments: list[tuple[int, bytes]]) -> OpeningAnswer:
    return evaluate(
        fragments, nonce=NONCE, date=DATE, host=HOST, key_id=KEY.key_id, keys=KeyRing([KEY]), allow=_ALLOW,
        server_version="0.1.0",
    )  # fmt: skip


def opening_evaluation(data: bytes) -> None:
    chance = random.Random(data)
    whole = _answer([(0, data)])
    fragments, at = [], 0
    for piece in pieces(data, chance):
        back = chance.randint(0, min(at, 5))  # they may overlap
        fragments.append((at - back, data[at - back : at] + piece))
        at += len(piece)
    chance.shuffle(fragments)
    assert _answer(fragments) == whole
    before = _answer([(0, data[: chance.randint(0, len(data))])])
    assert whole.server_bytes.startswith(before.server_bytes)
    assert before.state in (OpeningState.WAITING, whole.state)
    if whole.state is OpeningState.ACCEPTED:
        assert (whole.code, whole.key_id) == (Code.OK, KEY.key_id)
        assert whole.target is not None
        assert _ALLOW.permits(whole.target)
        assert socks_password(KEY, date=DATE, nonce=NONCE).encode() in data
        assert data[whole.client_offset :].startswith(whole.early)


def opening_reader(data: bytes) -> None:
    """What follows a true banner, and what comes in its place."""
    for stream in (data, _BANNER + data):
        whole = _read([stream])
        assert _read(pieces(stream, random.Random(data))) == whole


def _read(parts: list[bytes]) -> tuple[object, ...]:
    reader, left = OpeningReader(KEY, DATE, NONCE, HOST), b""
    try:
        for part in parts:
            left += reader.receive(part)
    except (RemoteProtocolError, AuthenticationError) as error:
        return (type(error),)
    assert reader.done or not left
    return reader.done, reader.banner, reader.reply, reader.code if reader.done else None, left
