"""``emissary config``: the settings that are in force, and where each comes from."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, TextIO

from emissary_lib.cli.failure import DEBUG
from emissary_lib.cli.output import standard_output
from emissary_lib.cli.settings import add_settings, settings_reader
from emissary_lib.client import config
from emissary_lib.client.settings import ENV_FILE
from emissary_lib.exceptions import ConfigError, PackageError
from emissary_lib.exit_status import Exit, exit_status
from emissary_lib.protocol.constants import PING_INTERVAL, PONG_DEADLINE
from emissary_lib.protocol.record import Record, replace

if TYPE_CHECKING:  # loaded where it is used: --help must not wait for it
    from emissary_lib.client.settings import SettingsReader

SUMMARY: Final = "show the settings in force, and where each comes from"
DESCRIPTION: Final = """\
Print what a dial from here would use: each setting, its value, and where that was found. Each comes from the
first place that has it: the environment; the file that --env-file or EMISSARY_ENV_FILE names; .env in the
current directory. No secret is shown. The gateway is not asked; a key in Secrets Manager is read.

A variable that looks like one of these and is none is named: it may be misspelt, or somebody else's, and the
exit status does not count it.
"""
EPILOG: Final = """\
examples:
  emissary config
  emissary config --env-file prod.env --json
"""
EXITS: Final = frozenset({Exit.SETTINGS})

#: Where a value is from that nobody has set.
_DEFAULT: Final = "default"

#: The line of the files that were looked into; what is wrong with one is said there, once.
_FILES: Final = "files"

#: Every setting of the platform's side.
SETTINGS: Final = (
    config.URL,
    *config.KEY_SETTINGS,
    config.CA_FILE,
    config.PING_SECONDS,
    config.PONG_SECONDS,
    ENV_FILE,
    DEBUG,
)

#: Variables of ours that mean nothing here: the functions'.
OF_THE_STACK: Final = (
    "EMISSARY_ALLOWED_PROXY_TARGETS",
    "EMISSARY_DNS_SERVERS",
    "EMISSARY_GRACE_SECONDS",
    "EMISSARY_LOG_LEVEL",
    "EMISSARY_MAX_SESSIONS",
    "EMISSARY_MAX_SESSIONS_PER_KEY",
    "EMISSARY_PROBE_SECONDS",
    "EMISSARY_RELAY_CONCURRENCY",
    "EMISSARY_RELAY_FUNCTION",
    "EMISSARY_RELAY_TIMEOUT",
    "EMISSARY_SLOT_TABLE",
    "EMISSARY_TABLE",
    "EMISSARY_WEBSOCKET_URL",
)

#: What ``emissary exec`` gives its program.
_OF_EXEC: Final = re.compile(r"EMISSARY_(?:[A-Z0-9_]+_\d+_)?(?:HOST|PORT)(?:_\d+)?")

#: How alike a setting's name must be to one that is none, to be shown as perhaps meant.
_ALIKE: Final = 0.75


class Line(Record):
    """One setting.

    Attributes:
        name: Its variable, or what it is.
        value: As shown; ``None`` if it is not set.
        source: Where it was found.
        fault: What is wrong with it; empty if nothing is.
        exit: The exit status for that.
    """

    name: str
    value: str | None
    source: str
    fault: str = ""
    exit: Exit = Exit.OK


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare its options."""
    parser.add_argument(
        "--json", action="store_true", help="print one line of JSON: by setting, value, source and fault"
    )
    add_settings(parser)


def run(args: argparse.Namespace) -> int:
    """Print the settings of this process."""
    lines = collect(settings_reader(args))
    print_lines(lines, json_line=args.json, out=standard_output())
    return max(line.exit for line in lines)  # wrong settings go before a package that one of them needs


def collect(reader: SettingsReader, environ: Mapping[str, str] | None = None) -> list[Line]:
    """All settings of the platform's side.

    Args:
        reader: Finds them.
        environ: Where proxies are named; ``None`` for the process's environment.
    """
    from emissary_lib.transport.trust import describe_authorities

    files = _line(_FILES, lambda: _files(reader))
    url = _line(config.URL, lambda: _url(reader))
    lines = [
        files,
        url,
        _line(config.AUTH_KEYS, lambda: _keys(reader)),
        _line(config.CA_FILE, lambda: _ca_file(reader)),
        _line(
            config.PING_SECONDS,
            lambda: _seconds(reader, config.PING_SECONDS, PING_INTERVAL, config.PING_RANGE),
        ),
        _line(
            config.PONG_SECONDS,
            lambda: _seconds(reader, config.PONG_SECONDS, PONG_DEADLINE, config.PONG_RANGE),
        ),
        _line("proxy", lambda: _proxy(url.value, environ)),
        Line("authorities", describe_authorities(), _DEFAULT),
    ]
    if files.fault:
        seen = replace(files, fault=f"see {_FILES}")
        lines[1:] = [
            replace(seen, name=each.name) if each.fault == files.fault else each for each in lines[1:]
        ]
    return lines + [
        Line(name, None, source, _unknown(name, source))
        for name, source in reader.others((*SETTINGS, *OF_THE_STACK)).items()
        if not _OF_EXEC.fullmatch(name)
    ]


def print_lines(lines: list[Line], *, json_line: bool, out: TextIO) -> None:
    """Print them, as text or as JSON."""
    if json_line:
        found = {
            line.name: {"value": line.value, "source": line.source, "fault": line.fault} for line in lines
        }
        print(json.dumps(found), file=out, flush=True)
        return
    width = max(len(line.name) for line in lines)
    for line in lines:
        text = f"{'(none)' if line.value is None else line.value}  [{line.source}]"
        if line.fault:  # the name stands before it already
            text = line.fault.removeprefix(line.name).removeprefix(":").strip()
        print(f"{line.name:<{width}}  {text}", file=out)
    out.flush()


def _line(name: str, read: Callable[[], tuple[str | None, str]]) -> Line:
    try:
        return Line(name, *read())
    except (ConfigError, PackageError) as exc:
        return Line(name, None, "", str(exc), exit_status(exc))


def _unknown(name: str, source: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name.upper(), SETTINGS, n=1, cutoff=_ALIKE)
    return f"no setting of Emissary's, in {source}" + (f"; did you mean {near[0]}?" if near else "")


def _files(reader: SettingsReader) -> tuple[str, str]:
    reader.check_files()
    return ", ".join(reader.files()), "in this order, after the environment"


def _url(reader: SettingsReader) -> tuple[str, str]:
    from emissary_lib.client.endpoint import Endpoint

    setting = config.read_url(reader)
    return Endpoint(setting.text).url, setting.source


def _keys(reader: SettingsReader) -> tuple[str, str]:
    given = config.read_keys(reader)
    first, *others = (str(key.key_id) for key in given.keys)
    also = f", also given: {', '.join(others)}" if others else ""
    return f"signing with key id {first}{also}", given.source


def _ca_file(reader: SettingsReader) -> tuple[str | None, str]:
    setting = reader.find(config.CA_FILE)
    path = config.read_path(reader, config.CA_FILE)
    if path is not None:
        from emissary_lib.transport.trust import client_context

        client_context(path)
    return path, setting.source if setting else _DEFAULT


def _seconds(
    reader: SettingsReader, name: str, default: float, limits: tuple[float, float]
) -> tuple[str, str]:
    setting = reader.find(name)
    value = config.read_seconds(reader, name, default, limits)
    return f"{value:g}", setting.source if setting else _DEFAULT


def _proxy(url: str | None, environ: Mapping[str, str] | None) -> tuple[str | None, str]:
    from emissary_lib.transport.proxy import VARIABLES, check_package, find_proxy

    if url is None:
        return None, "of no use without a URL"
    proxy = find_proxy(url, environ)
    if proxy:
        check_package(proxy)
        return str(proxy), proxy.variable
    return None, f"none of {', '.join(VARIABLES[url.startswith('wss:')])} applies"
