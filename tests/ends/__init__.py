"""What a program wrote before it closed arrives, or somebody is told: many programs that end at once.

``make ends``, or ``python -m tests.ends``; see :mod:`tests.ends.run`.
"""
