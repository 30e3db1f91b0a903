"""A connection that answers 410 is gone, though ``$disconnect`` has not said so, which it need not."""

from __future__ import annotations

from functions.common import logs
from functions.common.ports import SessionStore
from functions.common.session import Role, Session


def forget(store: SessionStore, session: Session, role: Role) -> Session | None:
    """Forget a side's connection, unless another has taken its place in the meantime.

    Its owner may come back, by a new connection or, if the 410 was untrue, by RESUME on this one.

    Returns:
        The session as it is now.

    Raises:
        StoreError: The table could not be reached.
    """
    side = session.side(role)
    if side.connection is None:
        return session
    after, done = store.clear(session.id, role, side.connection, side.epoch)
    if done:
        logs.info(
            "connection gone",
            session=session.id,
            role=role.value,
            epoch=side.epoch,
            cause="a post to it was answered 410",
        )
    return after
