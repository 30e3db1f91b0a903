"""``python -m tools.demo``: migrates a real database and verifies it; ``make demo`` runs this."""

from __future__ import annotations

import argparse
import sys

from emissary_lib.exceptions import EmissaryError
from emissary_local import LocalCloudError
from tools.demo.run import run_demo

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tools.demo", description=__doc__)
    parser.add_argument("--template", default="template.yaml", metavar="FILE", help="the SAM template")
    try:
        sys.exit(run_demo(parser.parse_args().template, out=sys.stdout))
    except (EmissaryError, LocalCloudError) as error:
        sys.exit(f"demo: {error}")
