"""The function of ``$connect``: lets a client in, or not."""
