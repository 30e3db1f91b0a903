"""What the values of options are read as; each complains in a sentence that argparse shows."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from emissary_lib.cli.forward import LISTEN
from emissary_lib.exceptions import ConfigError
from emissary_lib.operate.sessions import SESSION_ID
from emissary_lib.protocol.auth.keys import MAX_KEY_ID
from emissary_lib.protocol.targets.allow_list import Target


def template(text: str) -> str:
    """The path of a file that exists."""
    if not Path(text).is_file():
        raise argparse.ArgumentTypeError(
            f"there is no {text} here: run this from the project's folder, or name the file"
        )
    return text


def target(text: str) -> Target:
    """``HOST:PORT``."""
    try:
        return Target.parse(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def listen(text: str) -> tuple[str, int]:
    """``HOST:PORT`` or ``PORT``; port 0 is any free one."""
    host, _colon, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit() and int(port) <= 65_535):
        raise argparse.ArgumentTypeError(f"{text!r} is no HOST:PORT, with a port from 0 to 65535")
    return host.removeprefix("[").removesuffix("]") or LISTEN[0], int(port)


def share(text: str) -> float:
    """A number from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def count(text: str) -> int:
    """A whole number from 1 on."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return value


def positive(text: str) -> float:
    """A number above 0."""
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def key_id(text: str) -> int:
    """A key's id."""
    if not (text.isascii() and text.isdigit() and int(text) <= MAX_KEY_ID):
        raise argparse.ArgumentTypeError(f"{text!r} is no key id; want a number from 0 to {MAX_KEY_ID}")
    return int(text)


def session(text: str) -> str:
    """A session's id, or enough of its beginning."""
    if not SESSION_ID.fullmatch(text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no session id; want 8 to 64 hexadecimal digits, as listed"
        )
    return text


def fault(text: str) -> tuple[str, Any]:
    """``NAME=VALUE``, a setting of the local cloud's ``Faults``; values of a list are separated by commas."""
    from emissary_local.faults.settings import Faults

    known = {each.name: each.default for each in fields(Faults) if each.name != "seed"}
    name, equals, value = text.partition("=")
    if not equals or name not in known:
        what = f"there is no fault named {name!r}" if equals else f"{text!r} is no NAME=VALUE"
        raise argparse.ArgumentTypeError(f"{what}; the names are: {', '.join(known)}")
    try:
        read: float | Sequence[str]
        read = tuple(filter(None, value.split(","))) if isinstance(known[name], tuple) else float(value)
        Faults(**{name: read})  # type: ignore[arg-type]
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    except ValueError:
        raise argparse.ArgumentTypeError(f"{name}: {value!r} is no number") from None
    return name, read
