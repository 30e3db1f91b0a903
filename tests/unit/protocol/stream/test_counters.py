"""counters: what a session shows of its counts."""

from __future__ import annotations

from emissary_lib.protocol.stream.counters import Counters


def test_every_count_is_shown() -> None:
    counters = Counters()
    counters.bytes_sent = 5
    assert "bytes_sent=5" in repr(counters)
    assert repr(counters).count("=0") == len(Counters.__slots__) - 1
