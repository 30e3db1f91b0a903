"""What is said where websocket-client is not there, or another package stands in its place."""

from __future__ import annotations

from importlib.machinery import PathFinder

from emissary_lib.exceptions import PackageError


def package_error(error: ImportError) -> PackageError:
    """The error for ``websocket`` that cannot be imported.

    Args:
        error: What Python said.
    """
    found = PathFinder.find_spec("websocket")
    if found is None:
        return PackageError("the package websocket-client is not installed: pip install websocket-client")
    where = found.origin or ", ".join(found.submodule_search_locations or ())
    return PackageError(
        f"{where} is not the package websocket-client, but another called websocket ({error}): "
        "pip uninstall websocket websocket-client, then pip install websocket-client; "
        "or give that file another name"
    )
