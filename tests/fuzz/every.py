"""Every entry, one for each reader of what others write."""

from __future__ import annotations

from typing import Final

from tests.fuzz import auth, client, cloud, mux, opening, original, session, targets, wire
from tests.fuzz.entry import Entry

ENTRIES: Final = (
    Entry(wire.frames),
    Entry(wire.frame_fields),
    Entry(wire.payloads),
    Entry(wire.sack_ranges),
    Entry(wire.unpadded_base64),
    Entry(wire.varint),
    Entry(wire.foreign_text),
    Entry(auth.upgrade_headers),
    Entry(auth.opening_headers),
    Entry(auth.relay_headers),
    Entry(auth.resume_headers),
    Entry(auth.keys),
    Entry(auth.http_dates),
    Entry(auth.authority),
    Entry(auth.socks5_password),
    Entry(opening.socks5_server),
    Entry(opening.socks5_client),
    Entry(opening.local_socks),
    Entry(opening.banner),
    Entry(opening.opening_evaluation),
    Entry(opening.opening_reader),
    Entry(targets.hosts),
    Entry(targets.targets),
    Entry(targets.allow_list),
    Entry(cloud.gateway_event),
    Entry(cloud.launch_event),
    Entry(cloud.items),
    Entry(client.env_file),
    Entry(client.settings),
    Entry(client.url),
    Entry(client.websocket_frames, lines=300),
    Entry(session.session, lines=300),
    Entry(mux.mux_relay, lines=500),
    Entry(mux.mux_dialer, lines=500),
    Entry(original.original_server, lines=300),
)
