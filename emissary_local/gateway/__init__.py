"""API Gateway's WebSocket API: routes, events, limits, and the ``@connections`` API."""
