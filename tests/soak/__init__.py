"""Hours of bad luck in minutes: mixed traffic through the local cloud while every fault happens at once.

``make soak``, or ``python -m tests.soak``; see :mod:`tests.soak.run`.
"""
