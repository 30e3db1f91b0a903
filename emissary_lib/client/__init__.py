"""The dialer's end: dials, sockets, forwards and health checks, over one WebSocket for each tunnel."""
