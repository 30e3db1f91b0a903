"""``python -m emissary_lib``: the same as the ``emissary`` command."""

from __future__ import annotations

import sys

from emissary_lib.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
