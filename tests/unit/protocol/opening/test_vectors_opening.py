"""The byte-exact examples in tests/vectors: checked first by themselves, then against the program."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import pathlib
import struct
from typing import Any

import pytest

from emissary_lib.protocol.auth import macs as auth
from emissary_lib.protocol.errors import RemoteProtocolError
from emissary_lib.protocol.opening import banner, socks5
from emissary_lib.protocol.opening.exchange import evaluate
from emissary_lib.protocol.targets.allow_list import AllowList, Target

VECTORS = pathlib.Path(__file__).resolve().parents[3] / "vectors"


def load(name: str) -> dict[str, Any]:
    vectors: dict[str, Any] = json.loads((VECTORS / f"{name}.json").read_text())
    return vectors


AUTH, BANNER, SOCKS5, OPENING = map(load, ("auth", "banner", "socks5", "opening"))

KEY = auth.Key(AUTH["kid"], bytes.fromhex(AUTH["secret"]))
NONCE = bytes.fromhex(AUTH["nonce"])
PROOF = {"date": AUTH["date"], "nonce": NONCE, "host": AUTH["host"]}


def mac_by_hand(label: bytes, *fields: bytes) -> str:
    """Section 7.2 in hmac and struct alone."""
    parts = (label, *fields)
    content = b"".join(struct.pack(">H", len(part)) + part for part in parts)
    return hmac.new(bytes.fromhex(AUTH["secret"]), content, hashlib.sha256).hexdigest()


COMMON = (struct.pack(">I", AUTH["kid"]), AUTH["date"].encode(), NONCE, AUTH["host"].encode())


def test_door_mac() -> None:
    assert mac_by_hand(b"emissary.v2 door", *COMMON) == AUTH["door_mac"]
    assert auth.sign_connect(KEY, **PROOF).mac.hex() == AUTH["door_mac"]


def test_server_mac() -> None:
    assert mac_by_hand(b"emissary.v2 server", *COMMON) == AUTH["server_mac"]
    assert auth.server_mac(KEY, **PROOF).hex() == AUTH["server_mac"]


def test_resume_mac() -> None:
    more = (AUTH["session"].encode(), struct.pack(">I", AUTH["epoch"]))
    assert mac_by_hand(b"emissary.v2 resume", *COMMON, *more) == AUTH["resume_mac"]
    mac = auth.resume_mac(KEY, **PROOF, session=AUTH["session"], epoch=AUTH["epoch"])
    assert mac.hex() == AUTH["resume_mac"]


def test_opening_mac() -> None:
    content = struct.pack(">I", AUTH["opening_window"]) + bytes.fromhex(AUTH["opening_stream"])
    assert mac_by_hand(b"emissary.v2 opening", *COMMON, content) == AUTH["opening_mac"]
    stream = bytes.fromhex(AUTH["opening_stream"])
    shown = auth.sign_opening(KEY, **PROOF, window=AUTH["opening_window"], stream=stream)
    assert shown.mac.hex() == AUTH["opening_mac"]
    assert shown.to_headers() == AUTH["opening_headers"]
    assert auth.OpeningHeaders.from_headers(AUTH["opening_headers"]) == shown
    auth.verify_opening(shown, KEY, **PROOF)


def test_relay_token() -> None:
    kid, random = struct.pack(">I", AUTH["kid"]), bytes.fromhex(AUTH["relay_random"])
    assert mac_by_hand(b"emissary.v2 relay", kid, AUTH["session"].encode(), random) == AUTH["relay_mac"]
    assert (kid + random).hex() + AUTH["relay_mac"] == AUTH["relay_token"]
    token = auth.relay_token(KEY, session=AUTH["session"], random=random)
    assert token.hex() == AUTH["relay_token"]
    auth.verify_relay_token(token, auth.KeyRing([KEY]), session=AUTH["session"])


def test_socks_password_has_the_form_of_the_original() -> None:
    nonce = base64.b64encode(NONCE).rstrip(b"=")
    mac = hmac.new(KEY.secret, AUTH["date"].encode() + b"\0" + nonce, hashlib.sha256).digest()
    assert (
        base64.b64encode(struct.pack(">I", AUTH["kid"]) + mac).rstrip(b"=").decode() == AUTH["socks_password"]
    )
    assert auth.socks_password(KEY, date=AUTH["date"], nonce=NONCE) == AUTH["socks_password"]


def test_session_id_and_token_hash_are_sha256() -> None:
    assert hashlib.sha256(NONCE).hexdigest() == AUTH["session"] == auth.session_id(NONCE)
    token = bytes.fromhex(AUTH["relay_token"])
    assert hashlib.sha256(token).hexdigest() == AUTH["relay_token_hash"] == auth.token_hash(token)


def test_date_and_keys() -> None:
    assert auth.http_date(AUTH["unix"]) == AUTH["date"]
    assert auth.parse_http_date(AUTH["date"]) == AUTH["unix"]
    assert auth.parse_keys(AUTH["keys_json"]) == (KEY,)


def test_headers() -> None:
    assert auth.sign_connect(KEY, **PROOF).to_headers() == AUTH["door_headers"]
    claim = auth.RelayHeaders(AUTH["session"], bytes.fromhex(AUTH["relay_token"]), "0123456789abcdef" * 2, 1)
    assert claim.to_headers() == AUTH["relay_headers"]


def fields(found: banner.Banner) -> dict[str, Any]:
    return {
        "server_software": found.server_software,
        "server_version": found.server_version,
        "protocol_version": found.protocol_version,
        "nonce": found.nonce.hex(),
        "server_mac": found.server_mac.hex(),
    }


@pytest.mark.parametrize("case", BANNER["banners"], ids=lambda case: case["name"])
def test_banner(case: dict[str, Any]) -> None:
    data = bytes.fromhex(case["bytes"])
    for cut in range(len(data)):
        assert banner.parse_banner(data[:cut]) is None
    for trailing in (b"", b"\x05\x02"):
        found = banner.parse_banner(data + trailing)
        assert found is not None
        assert (fields(found[0]), found[1]) == (case["fields"], len(data))
        assert (found[0].encode() == data) is case["canonical"]


@pytest.mark.parametrize("case", BANNER["messages"], ids=lambda case: case["name"])
def test_banner_message(case: dict[str, Any]) -> None:
    found = banner.parse_message(bytes.fromhex(case["bytes"]))
    assert fields(found) == case["fields"]
    assert found.encode_message().hex() == case["bytes"]


@pytest.mark.parametrize("case", BANNER["malformed"], ids=lambda case: case["name"])
def test_malformed_banner(case: dict[str, Any]) -> None:
    with pytest.raises(RemoteProtocolError):
        banner.parse_banner(bytes.fromhex(case["bytes"]))


def test_socks5_messages() -> None:
    assert socks5.greeting().hex() == SOCKS5["greeting"]
    assert socks5.method_choice(socks5.Method.USERNAME_PASSWORD).hex() == SOCKS5["method_choice_password"]
    assert socks5.method_choice(socks5.Method.NO_ACCEPTABLE).hex() == SOCKS5["method_choice_none"]
    login = SOCKS5["credentials"]
    assert socks5.credentials(login["username"], login["password"]).hex() == login["bytes"]
    assert socks5.auth_status(True).hex() == SOCKS5["auth_success"]
    assert socks5.auth_status(False).hex() == SOCKS5["auth_failure"]


@pytest.mark.parametrize("case", SOCKS5["connects"], ids=lambda case: case["target"][0])
def test_connect(case: dict[str, Any]) -> None:
    assert socks5.connect(Target(*case["target"])).hex() == case["bytes"]


@pytest.mark.parametrize("case", SOCKS5["replies"], ids=lambda case: case["bytes"])
def test_reply(case: dict[str, Any]) -> None:
    host, port = case["bound"]
    assert socks5.reply(socks5.ReplyCode(case["code"]), (host, port)).hex() == case["bytes"]


@pytest.mark.parametrize("case", OPENING["cases"], ids=lambda case: case["name"])
def test_opening(case: dict[str, Any]) -> None:
    stream = bytes.fromhex(case["stream"])
    one_by_one = [(offset, stream[offset : offset + 1]) for offset in range(len(stream))]
    for fragments in ([(0, stream)], one_by_one, one_by_one[::-1]):
        answer = evaluate(
            fragments,
            **PROOF,
            key_id=KEY.key_id,
            keys=auth.KeyRing([KEY]),
            allow=AllowList.parse(json.dumps(OPENING["allow"])),
            server_version=OPENING["server_version"],
        )
        assert answer.state.name == case["state"]
        assert answer.server_bytes.hex() == case["server_bytes"]
        assert answer.client_offset == case["client_offset"]
        assert answer.code.name == case["code"]
        assert answer.early.hex() == case["early"]
        assert (answer.target and str(answer.target)) == case["target"]
