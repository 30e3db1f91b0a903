"""Asks AWS, by a small stack of its own, what Emissary assumes about it."""
