"""The seeds, and inputs like them, through each entry; and that entries and command tell what they find."""

from __future__ import annotations

import importlib.util
import itertools
import os
import pathlib
import random
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from typing import Final

import pytest

from emissary_lib.protocol.opening.banner import Banner
from emissary_lib.protocol.session.session import Session
from emissary_lib.protocol.wire.frames import Frame, FrameType
from tests.fuzz import auth, opening, targets, wire
from tests.fuzz.entry import SEEDS, Entry, TooMuchWorkError, mutations
from tests.fuzz.every import ENTRIES
from tests.fuzz.run import find

ROOT: Final = pathlib.Path(__file__).parents[2]

#: Of each entry, in the suite.
MUTATIONS: Final = 300

Check = Callable[[bytes], None]


def test_every_entry_has_seeds_and_no_seeds_are_left_over() -> None:
    names = [entry.name for entry in ENTRIES]
    assert sorted(names) == sorted(path.name for path in SEEDS.iterdir())
    assert min(len(entry.seeds) for entry in ENTRIES) >= 3


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_what_holds_for_any_bytes_holds_for_the_seeds_and_what_is_like_them(entry: Entry) -> None:
    seeds = list(entry.seeds.values())
    for seed in seeds:
        entry.count(seed)
    for data in itertools.islice(mutations(seeds, random.Random(entry.name)), MUTATIONS):
        entry.run(data)


def raises_what_is_not_declared(*_arguments: object, **_named: object) -> None:
    raise KeyError("not declared")


def reads_the_same_whatever_it_is_given(*_arguments: object) -> Frame:
    return Frame(FrameType.DATA)


@pytest.mark.parametrize(
    ("entry", "module", "name", "broken"),
    [
        ("frames", wire, "decode", reads_the_same_whatever_it_is_given),
        ("frames", wire, "peek", raises_what_is_not_declared),
        ("sack_ranges", wire, "decode_ranges", lambda raw, ack: []),
        ("varint", wire, "decode_varint", lambda data: (1, 1)),
        ("keys", auth, "parse_keys", lambda text: [text]),
        ("http_dates", auth, "parse_http_date", lambda text: 0.0),
        ("banner", opening, "parse_banner", lambda data: (Banner("", "", 2, b""), 9)),
        ("hosts", targets, "canonical_host", str.lower),
        ("session", Session, "receive_message", raises_what_is_not_declared),
        ("session", Session, "next_timeout", lambda session: 0.0),
    ],
)
def test_an_entry_fails_with_a_broken_parser(
    monkeypatch: pytest.MonkeyPatch, entry: str, module: object, name: str, broken: object
) -> None:
    (found,) = [each for each in ENTRIES if each.name == entry]
    monkeypatch.setattr(module, name, broken)
    with pytest.raises((AssertionError, KeyError, TypeError, AttributeError)):
        test_what_holds_for_any_bytes_holds_for_the_seeds_and_what_is_like_them(found)


def in_square_time(data: bytes) -> None:
    for _one in data:
        for _other in data:
            pass


def in_no_time_at_all(_data: bytes) -> None:
    while True:
        try:
            while True:
                pass
        except Exception:
            continue


def in_straight_time(data: bytes) -> None:
    for _each in data:
        pass


@pytest.mark.parametrize("check", [in_square_time, in_no_time_at_all])
def test_work_that_outgrows_the_input_is_told_whatever_catches_errors_on_the_way(check: Check) -> None:
    before = sys.gettrace()
    with pytest.raises(TooMuchWorkError):
        Entry(check).count(bytes(4096))
    assert sys.gettrace() is before


def test_work_that_grows_with_the_input_is_not_told() -> None:
    Entry(in_straight_time).count(bytes(4096))


def test_some_inputs_have_their_work_counted_and_always_the_same_ones() -> None:
    def told(size: int) -> bool:
        try:
            Entry(in_square_time, lines=0).run(bytes(size))
        except TooMuchWorkError:
            return True
        return False

    first = [told(size) for size in range(110, 150)]
    assert any(first)
    assert not all(first)
    assert [told(size) for size in range(110, 150)] == first


def fuzz(folder: pathlib.Path, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """The command in an empty folder, of which modules may come too."""
    return subprocess.run(
        [sys.executable, "-m", "tests.fuzz", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{folder}:{ROOT}", **settings},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("led", [True, False])
def test_the_command_keeps_what_it_found_and_says_how_to_see_it_again(
    tmp_path: pathlib.Path, led: bool
) -> None:
    if not led:
        (tmp_path / "atheris.py").write_text("raise ImportError\n")
    good = fuzz(tmp_path, FUZZ="varint", FUZZ_SECONDS="1")
    assert good.returncode == 0, good.stdout + good.stderr
    coverage = led and importlib.util.find_spec("atheris") is not None
    assert re.fullmatch(
        rf"varint: \d+ inputs, {'led by coverage' if coverage else 'not led.*'}\n", good.stdout
    )
    (tmp_path / "sitecustomize.py").write_text(
        "import emissary_lib.protocol.wire.varint as varint\nvarint.decode_varint = lambda data: (1, 1)\n"
    )
    bad = fuzz(tmp_path, FUZZ="varint", FUZZ_SECONDS="1")
    assert bad.returncode == 1
    assert "AssertionError" in bad.stdout
    _python, _m, _module, *words = shlex.split(bad.stdout.rpartition("; again: ")[2])
    again = fuzz(tmp_path, *words)
    assert again.returncode != 0
    assert "AssertionError" in again.stderr
    (tmp_path / "sitecustomize.py").unlink()
    assert fuzz(tmp_path, *words).returncode == 0


def test_an_entry_that_is_none_is_told_with_those_that_are() -> None:
    with pytest.raises(SystemExit, match="no entry 'frame'; there are frames, "):
        find("frame")
