"""Processes that find nothing of what Windows' Python lacks; see ``sitecustomize``, which hides it."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping
from typing import Final

#: In PYTHONPATH, it has each Python that starts with it hide what is to be hidden.
FOLDER: Final = pathlib.Path(__file__).resolve().parent


def hidden_from(environ: Mapping[str, str]) -> dict[str, str]:
    """That environment, for a Python that is to find nothing of it."""
    given = [environ["PYTHONPATH"]] if environ.get("PYTHONPATH") else []
    return {**environ, "PYTHONPATH": os.pathsep.join([str(FOLDER), *given])}
