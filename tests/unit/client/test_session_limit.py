"""A dial beyond a limit of sessions."""

from __future__ import annotations

import pytest

from emissary_lib.client.dialer import Dialer
from emissary_lib.exceptions import SessionLimitError
from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.wire.frames import Frame, FrameType, encode
from emissary_lib.protocol.wire.payloads import Ended
from tests.helpers.bridge import KEY, TARGET, Behaviour, Bridge
from tests.helpers.patience import HANG


def test_a_limit_of_sessions_is_told_in_the_bridge_s_words_and_not_tried_again() -> None:
    said = Ended(Code.SESSION_LIMIT, 0, 0, "limit of 5 sessions for key 7 reached")
    text = encode(Frame(FrameType.ENDED, generation=1, payload=said.encode()))
    with Bridge(Behaviour(answer=text)) as bridge, pytest.raises(SessionLimitError) as caught:
        Dialer(bridge.url, KEY).dial(TARGET, HANG)
    assert "cannot reach db.internal:5432: limit of 5 sessions for key 7 reached; close some" in str(
        caught.value
    )
    assert (caught.value.code, len(bridge.server.requests)) == (Code.SESSION_LIMIT, 1)
