"""The packages that Lambda's Python runtime brings, and no others, in a folder of their own.

A built artifact has to hold everything else. To prove it, it runs with this folder instead of the virtual
environment's packages, in which whatever was forgotten would be found.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Final

from emissary_local.errors import LocalCloudError

#: Top-level modules.
#:
#: Source: AWS Lambda developer guide, "Working with Python", "Runtime dependencies in Python"; the first line
#: is the SDK with what it needs, the second AWS's runtime client with what that needs.
RUNTIME_MODULES: Final = (
    "boto3", "botocore", "s3transfer", "jmespath", "dateutil", "six", "urllib3",
    "awslambdaric", "runtime_client", "simplejson", "snapshot_restore_py",
)  # fmt: skip


def make_runtime_site(folder: Path) -> Path:
    """Fill an empty folder with links to the runtime's packages, as they are installed here.

    Returns:
        The folder, for PYTHONPATH.

    Raises:
        LocalCloudError: If one is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in RUNTIME_MODULES:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            raise LocalCloudError(
                f"{name} is not installed; install it with: pip install 'emissary-lib[local]'"
            )
        origin = Path(spec.origin)
        found = origin.parent if spec.submodule_search_locations else origin
        (folder / found.name).symlink_to(found)
    return folder
