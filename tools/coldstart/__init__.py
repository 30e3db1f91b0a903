"""Measures what the start of each function costs, from its built artifact."""
