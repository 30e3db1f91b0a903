"""A connection that answers 410 is gone, though ``$disconnect`` has not said so, which it need not."""

from __future__ import annotations

from functions.common import logs
from functions.common.ports import PeerLink, SessionStore
from functions.common.routes.posting import close
from functions.common.session import Role, Session


def forget(
    store: SessionStore, link: PeerLink, session: Session, role: Role, gone: str, now: float
) -> Session | None:
    """Forget that a side has the connection ``gone``, unless another has taken its place in the meantime.

    It is closed as well. If the 410 was untrue, nobody but its owner could put it right, and would not know
    that there is a need to: a connection that ends is what brings it back at once.

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
        close(link, gone, session=session.id)
    return after
