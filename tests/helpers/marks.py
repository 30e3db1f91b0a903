"""What a test needs of the system it runs on; where that is not there, it is skipped."""

from __future__ import annotations

import pytest

from emissary_lib import system

with_unix_sockets = pytest.mark.skipif(system.UNIX is None, reason="Python has no Unix sockets here")
