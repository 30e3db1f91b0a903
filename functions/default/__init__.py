"""The function of ``$default``: passes each message on to the sender's peer."""
