"""How long what a user wrote, whose connection broke, is waited for."""

from __future__ import annotations

from emissary_lib.protocol.codes import Code
from emissary_lib.protocol.user_loss import UserLoss


def test_progress_and_pauses_put_the_end_off() -> None:
    loss, seen = UserLoss(Code.TARGET_RESET, "gone", 3, 10, 100.0), []
    for progress, now, paused in (
        (10, 104, False), (11, 104, False), (11, 107, False), (11, 108, True), (11, 120, True),
        (11, 121, False), (11, 125, False),
    ):  # fmt: skip
        loss.look(progress, now, paused=paused)
        seen.append(loss.until)
    assert seen == [105, 109, 109, 113, 125, 126, 126]
    assert (loss.code, loss.reason, loss.unread) == (Code.TARGET_RESET, "gone", 3)
