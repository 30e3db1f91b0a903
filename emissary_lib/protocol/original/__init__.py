"""The original Emissary's transport: its WebSocket frames, its opening, its stream of bytes, its end."""
