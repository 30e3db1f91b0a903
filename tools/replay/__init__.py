"""Replays ``events/`` against the built artifacts, under AWS's own runtime interface emulator."""
