"""Masks: each byte with the key's of its place, whatever does it."""

from __future__ import annotations

import itertools
import subprocess
import sys

import pytest

from emissary_lib.protocol.wire.masking import Mask, accelerated
from tests.helpers.speedups import MASKS


@MASKS
def test_the_example_of_the_rfc(mask: Mask) -> None:
    """RFC 6455 section 5.7: a masked text frame that says Hello."""
    assert mask(b"Hello", bytes.fromhex("37fa213d")) == bytes.fromhex("7f9f4d5158")


@MASKS
@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 5, 125, 126, 1_021, 16_383, 16_384, 31_000])
def test_each_byte_is_masked_with_the_key_s_of_its_place(mask: Mask, size: int) -> None:
    data = bytes(itertools.islice(itertools.cycle(range(256)), size))
    for key in (bytes(4), b"\xff\0\x80\1", bytes.fromhex("37fa213d")):
        masked = mask(data, key)
        assert masked == bytes(each ^ key[at % 4] for at, each in enumerate(data))
        assert mask(masked, key) == data


def test_without_the_package_there_is_nothing_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("websockets", "websockets.speedups"):
        monkeypatch.setitem(sys.modules, name, None)
    assert accelerated() is None


def test_the_package_is_not_looked_for_before_a_long_frame() -> None:
    """Its import takes as long as a third of all else that a dial imports."""
    code = (
        "import sys; from emissary_lib.protocol.wire import masking\n"
        "masking.mask(bytes(1000), bytes(4)); assert 'websockets' not in sys.modules\n"
        "sys.modules['websockets'] = None  # not installed\n"
        "assert masking.accelerated() is None; assert masking.mask(bytes(20_000), b'abcd') == b'abcd' * 5_000"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
