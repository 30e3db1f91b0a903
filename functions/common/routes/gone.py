"""A connection that answers 410 is gone, though ``$disconnect`` has not said so, which it need not."""

from __future__ import annotations

from collections.abc import Callable

from emissary_lib.bridge.session import RecordState, SessionRecord
from emissary_lib.protocol.role import Role
from functions.common import logs
from functions.common.ports import PeerLink, SessionStore
from functions.common.routes.posting import close


def post_or_forget(
    store: SessionStore,
    link: PeerLink,
    session: SessionRecord,
    role: Role,
    post: Callable[[SessionRecord, str], bool],
    clock: Callable[[], float],
    *,
    gone: str | None = None,
) -> tuple[SessionRecord | None, str | None]:
    """Post to the connection of a side, and forget it if it is gone.

    Once more only if another connection has taken its place since the session was read.

    Args:
        store: The sessions.
        link: To the connections.
        session: As it was read.
        role: The side.
        post: Posts to a connection of the session; whether that exists.
        clock: Seconds since 1970 UTC.
        gone: A connection that has just been found not to exist any more.

    Returns:
        The session as it is now, None if there is none; and the connection that was posted to, None if there
        is none that could be. Of one that may only be about to exist nothing is said, and nothing forgotten.

    Raises:
        StoreError: The table could not be reached.
    """
    current: SessionRecord | None = session
    while current and (peer := current.side(role).connection) and current.state is not RecordState.ENDED:
        if peer != gone and post(current, peer):
            return current, peer
        now = clock()
        if current.arriving(role, now):
            break
        current, gone = _forget(store, link, current, role, peer, now), peer
    return current, None


def _forget(
    store: SessionStore, link: PeerLink, session: SessionRecord, role: Role, gone: str, now: float
) -> SessionRecord | None:
    """Forget that a side has the connection ``gone``, unless another has taken its place in the meantime.

    It is closed as well. If the 410 was untrue, nobody but its owner could put it right, and would not know
    that there is a need to: a connection that ends is what brings it back at once.
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
