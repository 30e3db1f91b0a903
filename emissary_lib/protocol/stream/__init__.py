"""One session's two byte streams: offsets, acknowledgements, retransmission and congestion control."""
