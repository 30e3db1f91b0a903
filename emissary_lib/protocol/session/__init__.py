"""One end of a session: its states, its link's losses and returns, its keepalive and its end."""
