"""Many connections over one session's byte stream (docs/protocol.md section 11)."""
