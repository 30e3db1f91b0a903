"""What the package exports, and that importing it costs the functions nothing they do not have."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import emissary_lib

#: Modules that cost the dialer's import much: they generate code for each class, or are for what few ask for.
COSTLY = ["dataclasses", "datetime", "pathlib", "random", "secrets", "email", "emissary_lib.client.health"]

#: Modules of ours that the dialer may load; each is a file to find, read and run.
MODULES = 89

#: Modules that a function's container need not have, or need not load.
HEAVY = ["websocket", "h2", "aiohttp", "boto3", "moto", "cryptography", "yaml", "sqlalchemy", "psycopg"]


@pytest.mark.parametrize("name", emissary_lib.__all__)
def test_every_exported_name_resolves_and_is_documented(name: str) -> None:
    value = getattr(emissary_lib, name)
    assert name == "__version__" or value.__doc__


def test_a_lazy_name_is_the_one_of_its_home() -> None:
    for name, home in emissary_lib._HOMES.items():
        assert getattr(emissary_lib, name) is getattr(importlib.import_module(home), name)
    assert sorted(dir(emissary_lib)) == sorted(emissary_lib.__all__)
    assert len(set(emissary_lib.__all__)) == len(emissary_lib.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Dailer'"):
        emissary_lib.Dailer  # noqa: B018


def run(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_protocol_imports_without_any_of_the_libraries_around_it() -> None:
    blocked = "import sys\n" + "".join(f"sys.modules[{name!r}] = None\n" for name in HEAVY)
    run(blocked + "import emissary_lib.protocol.wire.frames, emissary_lib.protocol.session.session")


def test_the_dialer_needs_websocket_client_alone() -> None:
    heavy = [name for name in HEAVY if name != "websocket"]
    blocked = "import sys\n" + "".join(f"sys.modules[{name!r}] = None\n" for name in heavy)
    run(blocked + "from emissary_lib import Dialer, Key, Target, TunnelSocket, EmissaryError")


def test_importing_the_core_loads_no_socket_module() -> None:
    names = ["websocket", "ssl", "socket", "selectors"]
    program = (
        f"import sys, emissary_lib.protocol.wire.frames; print([n for n in {names} if n in sys.modules])"
    )
    assert run(program) == "[]\n"


def test_the_dialer_loads_neither_the_local_cloud_nor_the_sdk_nor_the_command() -> None:
    strangers = [
        "emissary_local",
        "boto3",
        "botocore",
        "argparse",
        "emissary_lib.cli",
        "emissary_lib.operate",
    ]
    program = (
        f"import sys; from emissary_lib import Dialer; print([n for n in {strangers} if n in sys.modules])"
    )
    assert run(program) == "[]\n"


def test_importing_the_dialer_costs_little_more_than_what_it_needs() -> None:
    """The time itself is measured by tools/bench: a test of it would depend on what else the machine does."""
    program = f"""
import sys, ssl, socket, websocket
needed = set(sys.modules)
from emissary_lib import Dialer
ours = set(sys.modules) - needed
print([name for name in {COSTLY} if name in ours])
print(len([name for name in ours if name.partition(".")[0] == "emissary_lib"]) <= {MODULES})
"""
    assert run(program) == "[]\nTrue\n"


def test_a_relay_loads_http2_at_its_start_and_not_in_the_first_dial() -> None:
    program = """
import sys, functions.relay.app
before = set(sys.modules)
import functions.relay.requests, h2.connection
print(set(sys.modules) - before)
"""
    assert run(program) == "set()\n"
