"""SOCKS5 under any cut and any garbage."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from emissary_lib.protocol.opening.socks5 import (
    auth_status,
    connect,
    credentials,
    greeting,
    method_choice,
    reply,
)
from emissary_lib.protocol.opening.socks5_messages import ReplyCode
from emissary_lib.protocol.targets.allow_list import Target
from tests.fuzz.opening import ask, serve, serve_locally

HOSTS = st.one_of(
    st.from_regex(r"[a-z]([a-z0-9-]{0,20}\.)?[a-z]{1,20}", fullmatch=True),
    st.ip_addresses().map(str),
)
TARGETS = st.builds(Target, HOSTS, st.integers(1, 65535))
SHORT = st.binary(min_size=1, max_size=255)
CLIENT_STREAMS = st.builds(
    lambda methods, username, password, target, tail: (
        greeting(tuple(methods)) + credentials(username, password) + connect(target) + tail
    ),
    st.lists(st.integers(0, 255), max_size=20),
    SHORT,
    SHORT,
    TARGETS,
    st.binary(max_size=20),
)
SERVER_STREAMS = st.builds(
    lambda code, tail: method_choice(2) + auth_status(True) + reply(code) + tail,
    st.sampled_from(ReplyCode),
    st.binary(max_size=20),
)
CUTS = st.lists(st.integers(0, 600), max_size=12)


def pieces(stream: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    return [stream[low:high] for low, high in itertools.pairwise(edges)]


@given(CLIENT_STREAMS, CUTS)
def test_any_cut_of_a_clients_stream_reads_as_the_whole(stream: bytes, cuts: list[int]) -> None:
    whole = serve([stream])
    assert serve(pieces(stream, cuts)) == whole
    assert len(whole[0]) == 3
    assert whole[1] + len(whole[2]) == len(stream)


@given(
    st.one_of(st.binary(max_size=80), st.binary(max_size=80).map(lambda tail: b"\x05\x01\x02" + tail)), CUTS
)
def test_a_server_meets_garbage_with_its_own_error_alone(stream: bytes, cuts: list[int]) -> None:
    assert serve(pieces(stream, cuts)) == serve([stream] if stream else [])


@given(SERVER_STREAMS, CUTS)
def test_any_cut_of_a_servers_stream_reads_as_the_whole(stream: bytes, cuts: list[int]) -> None:
    whole = ask([stream])
    assert whole is not None
    assert ask(pieces(stream, cuts)) == whole
    assert whole[3] == stream[14:]


@given(
    st.one_of(st.binary(max_size=80), st.binary(max_size=80).map(lambda tail: b"\x05\x02\x01\x00" + tail)),
    CUTS,
)
def test_a_client_meets_garbage_with_its_own_error_alone(stream: bytes, cuts: list[int]) -> None:
    assert ask(pieces(stream, cuts)) == ask([stream] if stream else [])


LOCAL_STREAMS = st.one_of(
    st.binary(max_size=60),
    st.binary(max_size=60).map(lambda tail: b"\x05\x01\x00" + tail),
    st.builds(lambda target, tail: greeting((0,)) + connect(target) + tail, TARGETS, st.binary(max_size=20)),
)


@given(LOCAL_STREAMS, CUTS)
def test_the_local_server_decides_the_same_in_any_cut(stream: bytes, cuts: list[int]) -> None:
    assert serve_locally(pieces(stream, cuts)) == serve_locally([stream])


@given(TARGETS, CUTS)
def test_the_local_server_gives_every_target_that_a_client_can_name(target: Target, cuts: list[int]) -> None:
    given_back, refusal, said = serve_locally(pieces(greeting((0,)) + connect(target), cuts))
    assert (given_back, refusal, said) == (target, "", method_choice(0))
