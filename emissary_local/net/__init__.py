"""Listening on this machine: ports, TLS, HTTP and WebSockets, below any AWS service."""
