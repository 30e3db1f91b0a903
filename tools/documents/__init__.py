"""The project's documents: generates the tables that repeat code, and wraps all prose to one width."""

from __future__ import annotations

import pathlib
from typing import Final

ROOT: Final = pathlib.Path(__file__).resolve().parents[2]
