"""No output of the command has a key in it, whatever is wrong with the settings."""

from __future__ import annotations

import base64
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Mapping

import pytest

from tests.helpers.patience import HANG

ROOT = pathlib.Path(__file__).resolve().parents[3]
SECRET = b"a-key-that-nobody-may-ever-read!"
DATA = base64.b64encode(SECRET).decode().rstrip("=")
URL = "ws://127.0.0.1:9/s"

#: What a user may have typed for the keys: each has the data of one in it.
WRONG_KEYS = [
    f'[{{"kid":1,"data":"{DATA}"}}]',  # well-formed
    f"[{{'kid':1,'data':'{DATA}'}}]",  # single quotes
    f'[{{"kid":1,"data":"{DATA}"}},]',  # trailing comma
    DATA,  # the data alone
    f'"{DATA}"',  # the data as JSON
    f'{{"kid":1,"data":"{DATA}"}}',  # an object
    f'[{{"kid":1,"data":"{DATA}',  # cut off
    f"[{{\u201ckid\u201d:1,\u201cdata\u201d:\u201c{DATA}\u201d}}]",  # typographic quotes
    f'[{{"kid":1,"data":"{DATA}!"}}]',  # no base64
    f'[{{"kid":1,"data":"{DATA[:8]}"}}]',  # too short
    f'[{{"kid":"{DATA}","data":"{DATA}"}}]',  # data as the id
    f'[{{"{DATA}":1}}]',  # data as a name
    f'["{DATA}"]',  # a list
    f'[{{"kid":1,"data":"{DATA}"}},{{"kid":1,"data":"{DATA}"}}]',  # twice the same id
    f'[{{"kid":1,"data":"{DATA}","more":"{DATA}"}}]',  # more members
    f'[{{"kid":1,\n"data":"{DATA}\n"}}]',  # a line break
    f'[{{"kid":1,"data":"{DATA}\\ud800"}}]',  # a surrogate
]

#: Runs each command line in one process with each environment and ``.env``, and prints all that it has said.
PROGRAM = """
import json, os, pathlib, sys
from emissary_lib.cli.main import main
for environ, env_file in json.load(sys.stdin):
    os.environ.update(environ)
    pathlib.Path(".env").write_text(env_file)
    for arguments in (["doctor"], ["doctor", "--json"], ["config"], ["config", "--json"],
                      ["forward", "db:1", "--check", "--timeout", "5"],
                      ["exec", "db:1", "--check", "--timeout", "5", "--", "true"]):
        print("ran", main(arguments), flush=True)
"""


def said(tmp_path: pathlib.Path, *settings: tuple[Mapping[str, str], str]) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path,
        env={"PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)]), "EMISSARY_DEBUG": "1"},
        input=json.dumps(settings),
        capture_output=True,
        text=True,
        timeout=HANG,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("ran ") == 6 * len(settings)
    return done.stdout + done.stderr


def leaks(text: str) -> list[str]:
    """The lines that have a part of the key."""
    parts = (DATA[:8], DATA[-8:], SECRET.decode()[:8], SECRET.hex()[:16])
    return [line for line in text.splitlines() if any(part in line for part in parts)]


@pytest.mark.parametrize("text", [f"wrong key {DATA!r}", repr(SECRET), f"ends with {DATA[-9:]}"])
def test_a_key_would_be_found(text: str) -> None:
    assert leaks(f"a line\n{text}\n") == [text]


def test_no_key_is_in_any_output_whatever_is_wrong_with_it(tmp_path: pathlib.Path) -> None:
    settings = [({"EMISSARY_URL": URL, "EMISSARY_AUTH_KEYS": keys}, "") for keys in WRONG_KEYS]
    text = said(tmp_path, *settings)
    assert "EMISSARY_AUTH_KEYS" in text
    assert leaks(text) == []


def test_nor_if_it_stands_in_a_file(tmp_path: pathlib.Path) -> None:
    nothing: Mapping[str, str] = {}
    settings = [(nothing, f"EMISSARY_URL={URL}\nEMISSARY_AUTH_KEYS={keys}\n") for keys in WRONG_KEYS]
    settings += [(nothing, f"EMISSARY_URL={URL}\n{keys}\n") for keys in WRONG_KEYS]
    assert leaks(said(tmp_path, *settings)) == []


def test_nor_if_another_setting_is_wrong_or_has_it_by_mistake(tmp_path: pathlib.Path) -> None:
    wrong = [
        {"EMISSARY_URL": "https://host/s"},
        {"EMISSARY_URL": ""},
        {"EMISSARY_URL": URL, "EMISSARY_PING_SECONDS": "x"},
        {"EMISSARY_URL": WRONG_KEYS[0], "EMISSARY_AUTH_KEYS": URL},
        {"EMISSARY_URL": f'[{{"kid": 1, "data": "{DATA}"}}]'},
        {"EMISSARY_URL": DATA},
        {"EMISSARY_URL": f"wss://1:{DATA}@host/s"},
    ]
    assert (
        leaks(said(tmp_path, *(({"EMISSARY_AUTH_KEYS": WRONG_KEYS[0], **each}, "") for each in wrong))) == []
    )


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("EMISSARY_AUTH_KEYS_FILE", ""),
        ("EMISSARY_AUTH_KEYS_SECRET", ""),
        ("EMISSARY_ENV_FILE", ""),
        ("EMISSARY_CA_FILE", WRONG_KEYS[0]),
        ("EMISSARY_PING_SECONDS", WRONG_KEYS[0]),
        ("https_proxy", WRONG_KEYS[0]),
    ],
)
def test_nor_if_it_is_in_the_variable_of_something_else(name: str, keys: str, tmp_path: pathlib.Path) -> None:
    given = {"EMISSARY_URL": "wss://host.invalid/s", "EMISSARY_AUTH_KEYS": keys}
    text = said(tmp_path, *(({**given, name: by_mistake}, "") for by_mistake in WRONG_KEYS))
    assert name in text
    assert leaks(text) == []
