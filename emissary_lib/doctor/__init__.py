"""``emissary doctor``: walks the way to a target rung by rung, and says where it breaks and what to do.

``report`` has the words, ``ladder`` the order, ``render`` the text and the JSON; all three are pure. The
rungs are small functions over the ports of ``ports``: ``configuration`` and ``gateway`` look at what stands
before the bridge, ``bridge`` and ``keys_and_limits`` at the bridge, ``vpc`` at what lies behind it, and
``greetings`` at what answers there. ``network`` and ``way`` are the real adapters, ``run`` puts everything
together. docs/doctor.md explains every rung.
"""
