"""The engine of both ends: drives a session between a local socket and a link."""
