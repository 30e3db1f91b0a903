"""Any bytes, into whatever reads what somebody else wrote: nothing but the declared error, in linear work.

An entry is a function that takes bytes and checks what holds for all of them. :mod:`tests.fuzz.every` lists
them, ``seeds/<entry>`` has where they begin. The suite replays the seeds and some mutations of them; ``make
fuzz``, or ``python -m tests.fuzz``, goes on from there, led by coverage.
"""
