"""`make bench`: how fast the local cloud and the dialer are on this machine."""
