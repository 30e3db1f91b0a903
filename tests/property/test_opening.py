"""The opening: whatever the gateway does to the messages, the answer is the same."""

from __future__ import annotations

import itertools
import random

from hypothesis import given
from hypothesis import strategies as st

from emissary_lib.bridge import items
from emissary_lib.bridge.session import Fragment, SessionRecord, has_room
from emissary_lib.protocol.auth import macs as auth
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.constants import (
    FRAGMENT_OVERHEAD,
    MAX_OPENING_BYTES,
    MAX_OPENING_TOTAL,
    OPENING_TIME,
    RELAUNCH_AFTER,
)
from emissary_lib.protocol.errors import AuthenticationError, RemoteProtocolError
from emissary_lib.protocol.opening import socks5
from emissary_lib.protocol.opening.banner import parse_banner
from emissary_lib.protocol.opening.exchange import (
    OpeningAnswer,
    OpeningReader,
    OpeningState,
    evaluate,
    opening_bytes,
)
from emissary_lib.protocol.record import replace
from emissary_lib.protocol.targets.allow_list import SHARED_TARGET, AllowList, Target
from emissary_local.billing.item_size import item_size

DATE = "Sun, 22 Nov 2026 12:00:00 GMT"
NONCE = b"n" * 32
HOST = "api.example.com"
KEY = auth.Key(1, b"k" * 16)
ALLOW = AllowList.parse('[{"host": "db.internal", "port": 5432}, {"host": "10.0.0.0/16", "port": 5432}]')


def answer(fragments: list[tuple[int, bytes]]) -> OpeningAnswer:
    return evaluate(
        fragments,
        nonce=NONCE,
        date=DATE,
        host=HOST,
        key_id=1,
        keys=auth.KeyRing([KEY]),
        allow=ALLOW,
        server_version="0.1.0",
    )


def stream_to(target: Target, key: auth.Key = KEY) -> bytes:
    return opening_bytes(key=key, date=DATE, nonce=NONCE, target=target)


GOOD = stream_to(Target("db.internal", 5432))
STREAMS = st.one_of(
    st.sampled_from([GOOD, stream_to(Target("10.0.0.5", 5432)), stream_to(SHARED_TARGET)]).flatmap(
        lambda stream: st.binary(max_size=30).map(lambda tail: stream + tail)
    ),
    st.sampled_from([stream_to(Target("db.internal", 1)), stream_to(Target("x", 1), auth.Key(1, b"x" * 16))]),
    st.integers(1, 65_535).map(lambda port: stream_to(Target(SHARED_TARGET.host, port))),
    st.integers(0, len(GOOD)).map(lambda end: GOOD[:end]),
    # A good stream with one byte changed: every branch of every message.
    st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)).map(
        lambda change: GOOD[: change[0]] + bytes([change[1]]) + GOOD[change[0] + 1 :]
    ),
    st.binary(max_size=60),
)


CUT = st.one_of(st.integers(0, 130), st.integers(0, 700))

#: So many launches there can be while a session is opening.
LAUNCHES = int(OPENING_TIME / RELAUNCH_AFTER)


@given(
    st.lists(
        st.builds(
            lambda offset, size, fill: Fragment(
                offset, bytes([fill]) * min(size, MAX_OPENING_BYTES - offset)
            ),
            st.one_of(st.just(0), st.integers(0, MAX_OPENING_BYTES - 1)),
            st.one_of(st.integers(1, 3), st.integers(1, MAX_OPENING_BYTES)),
            st.integers(0, 255),
        ),
        max_size=40,
    ),
    st.integers(1, 5),
)
def test_whatever_is_sent_the_stored_session_stays_small(sent: list[Fragment], rest: int) -> None:
    session = SessionRecord("0" * 64, 1, NONCE, DATE, HOST, 1.8e9, 1.8e9 + OPENING_TIME, 1_800_000_000)
    for fragment in sent:
        if has_room(session, fragment):
            session = replace(session, fragments=session.fragments | {fragment})
    used = sum(fragment.weight for fragment in session.fragments)
    assert used <= MAX_OPENING_TOTAL
    # Behind what was sent, as many small pieces as there is room for.
    room = (MAX_OPENING_TOTAL - used) // (rest + FRAGMENT_OVERHEAD)
    small = {Fragment(MAX_OPENING_BYTES - 5 - n, bytes(rest)) for n in range(room)}
    session = replace(session, fragments=session.fragments | small)
    item = items.new_session(session) | {
        "fragments": {"SS": [items.fragment_text(fragment) for fragment in session.fragments]},
        "target": items.text("h" * 255 + ":65535"),
        "relay_token_hashes": {"SS": [f"{n:064}" for n in range(LAUNCHES)]},
        "resume_token_hashes": {"SS": [f"{n:064}" for n in range(LAUNCHES)]},
    }
    assert item_size(item) < 14 * 1024


@given(st.lists(CUT, max_size=400), st.lists(CUT, max_size=400))
def test_an_opening_may_be_sent_in_any_cut_and_again_in_any_other(first: list[int], again: list[int]) -> None:
    stream = stream_to(Target("h" * 63 + ".internal", 5432))
    session = SessionRecord("0" * 64, 1, NONCE, DATE, HOST, 0.0, OPENING_TIME, 0)
    for cuts in (first, again):
        edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
        for low, high in itertools.pairwise(edges):
            fragment = Fragment(low, stream[low:high])
            assert has_room(session, fragment)
            session = replace(session, fragments=session.fragments | {fragment})


CUTS = st.lists(CUT, max_size=40)


@given(STREAMS, CUTS, st.integers(0, 20), st.randoms(use_true_random=False))
def test_order_cut_duplicates_and_overlaps_change_nothing(
    stream: bytes, cuts: list[int], extra: int, chance: random.Random
) -> None:
    whole = answer([(0, stream)])
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    fragments = [(low, stream[low:high]) for low, high in itertools.pairwise(edges)]
    for _ in range(extra):
        low = chance.randint(0, len(stream))
        fragments.append((low, stream[low : low + chance.randint(0, 40)]))
    chance.shuffle(fragments)
    assert answer(fragments) == whole


@given(STREAMS)
def test_answers_only_ever_grow_until_one_is_final(stream: bytes) -> None:
    """What was posted once is never taken back: each answer to a longer prefix goes on from the last."""
    before = answer([])
    for end in range(1, len(stream) + 1):
        now = answer([(0, stream[:end])])
        assert now.server_bytes.startswith(before.server_bytes)
        assert before.client_offset <= now.client_offset <= end
        if before.state is not OpeningState.WAITING:
            assert (now.state, now.code, now.target) == (before.state, before.code, before.target)
            assert now.server_bytes == before.server_bytes
        before = now


@given(STREAMS)
def test_only_the_key_and_the_list_let_anyone_through(stream: bytes) -> None:
    found = answer([(0, stream)])
    if found.state is OpeningState.ACCEPTED:
        assert found.key_id == 1
        assert found.target is not None
        assert found.target == SHARED_TARGET or ALLOW.permits(found.target)
        assert stream[: found.client_offset] + found.early == stream
        assert auth.socks_password(KEY, date=DATE, nonce=NONCE).encode() in stream


@given(st.lists(st.tuples(st.integers(0, 5000), st.binary(max_size=50)), max_size=20))
def test_contradicting_fragments_give_one_answer_in_any_order(fragments: list[tuple[int, bytes]]) -> None:
    assert answer(fragments) == answer(fragments[::-1]) == answer(sorted(fragments) * 2)


def read(parts: list[bytes]) -> tuple[bool, bool, Code | None, bytes] | type[Exception]:
    reader, user = OpeningReader(KEY, DATE, NONCE, HOST), b""
    try:
        for part in parts:
            user += reader.receive(part)
    except (RemoteProtocolError, AuthenticationError) as error:
        return type(error)
    return reader.banner is not None, reader.done, reader.code if reader.done else None, user


SERVED = answer([(0, GOOD)]).server_bytes + socks5.reply(socks5.ReplyCode.SUCCEEDED)
SERVER_STREAMS = st.one_of(
    st.binary(max_size=40).map(lambda tail: SERVED + tail),
    st.tuples(st.integers(0, len(SERVED) - 1), st.integers(0, 255)).map(
        lambda change: SERVED[: change[0]] + bytes([change[1]]) + SERVED[change[0] + 1 :]
    ),
    st.binary(max_size=700),
)


@given(SERVER_STREAMS, CUTS)
def test_any_cut_reads_as_the_whole_and_garbage_gives_known_errors(stream: bytes, cuts: list[int]) -> None:
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    parts = [stream[low:high] for low, high in itertools.pairwise(edges)]
    assert read(parts) == read([stream])


@given(st.binary(max_size=2000))
def test_a_banner_is_read_from_anything_or_refused_within_its_limit(data: bytes) -> None:
    try:
        found = parse_banner(data)
    except RemoteProtocolError:
        return
    assert len(data) < 512 if found is None else found[1] <= 512


@given(SERVER_STREAMS)
def test_nothing_but_the_keys_holder_can_make_the_reader_trust(stream: bytes) -> None:
    reader = OpeningReader(KEY, DATE, NONCE, HOST)
    try:
        reader.receive(stream)
    except (RemoteProtocolError, AuthenticationError):
        pass
    if reader.banner is not None:
        assert auth.server_mac(KEY, date=DATE, nonce=NONCE, host=HOST) in stream
