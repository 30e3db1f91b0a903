"""The function of ``$disconnect``: notes that a client's WebSocket is gone."""
