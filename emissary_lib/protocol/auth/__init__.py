"""Who may come in: keys, the MACs that prove one is known, and the headers that carry them."""
