"""The protocol's pure core: no socket, thread, clock or chance. docs/protocol.md says what each wing does."""
