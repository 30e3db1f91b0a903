"""A connection that answers 410 is gone, though ``$disconnect`` has not said so, which it need not."""

from __future__ import annotations

from functions.common import logs
from functions.common.ports import SessionStore
from functions.common.session import Role, Session


def forget(store: SessionStore, session: Session, role: Role, gone: str, now: float) -> Session | None:
    """Forget that a side has the connection ``gone``, unless another has taken its place in the meantime.

    Its owner may come back, by a new connection or, if the 410 was untrue, by RESUME on this one.

    Returns:
        The session as it is now.

    Raises:
        StoreError: The table could not be reached.
    """
    epoch = session.side(role).epoch
    after, done = store.clear(session.id, role, gone, epoch, now)
    if done:
        logs.info(
            "connection gone",
            session=session.id,
            role=role.value,
            epoch=epoch,
            cause="a post to it was answered 410",
        )
    return after
