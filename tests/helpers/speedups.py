"""Each implementation of what the extra ``speedups`` makes faster, for tests that hold for all of them."""

from __future__ import annotations

import pytest

from emissary_lib.protocol.wire import base64, masking

BASE64 = pytest.mark.parametrize(
    "codec",
    [
        pytest.param(base64.STANDARD, id="standard"),
        pytest.param(
            base64.accelerated(),
            id="pybase64",
            marks=pytest.mark.skipif(not base64.accelerated(), reason="pybase64 is not installed"),
        ),
    ],
)

MASKS = pytest.mark.parametrize(
    "mask",
    [
        pytest.param(masking.mask_by_lanes, id="lanes"),
        pytest.param(masking.mask, id="chosen"),
        pytest.param(
            masking.accelerated(),
            id="websockets",
            marks=pytest.mark.skipif(not masking.accelerated(), reason="websockets is not installed"),
        ),
    ],
)
