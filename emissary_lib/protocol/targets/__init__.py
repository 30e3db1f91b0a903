"""Where a relay may connect to: the allow-list, and what counts as an address."""
