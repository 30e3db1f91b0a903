"""``emissary doctor``: checks the way to a target step by step, and says what failed and what to do.

``checks`` has the terms and the order of running, ``render`` the text and the JSON; both are pure. The checks
are small functions over the ports of ``ports``: ``configuration`` and ``gateway`` look at what stands before
the bridge, ``bridge`` at the bridge, ``vpc`` at what lies behind it, with ``service_probes`` for what answers
there. ``network`` and ``probe`` are the real adapters, ``run`` puts everything together. docs/doctor.md
explains every check.
"""
