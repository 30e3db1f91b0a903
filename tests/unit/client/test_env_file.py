"""``.env`` files as people have them: other programs' lines, quotes, comments, pipes."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emissary_lib.client.env_file import MAX_SIZE, parse_env, read_text
from emissary_lib.exceptions import ConfigError

with_pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no such pipes")

OURS = "EMISSARY_URL=wss://host/stage\nEMISSARY_AUTH_KEYS='[{\"kid\":1}]'\n"
FOUND = {"EMISSARY_URL": "wss://host/stage", "EMISSARY_AUTH_KEYS": '[{"kid":1}]'}

#: Lines of other programs, each of which some reader of such files takes for a fault.
OTHERS = [
    'PEM="-----BEGIN PRIVATE KEY-----\nMIIEvQ+/==\n-----END PRIVATE KEY-----"\n',
    "-----BEGIN PRIVATE KEY-----\nMIIEvQ+/==\n-----END PRIVATE KEY-----\n",
    "spring.datasource.url=jdbc:postgresql://h/db\n",
    "AWS_PROFILE\n",
    "2x=1\na-b=2\n=3\n",
    'QUOTE="is not closed\n',
    "IT='s\n",
    "'\n",
    "[section]\n",
    "source ../other.env\n",
    "\x00\x01\n",
]


def ours(text: str) -> dict[str, str]:
    found = parse_env(text)
    assert found.faults == {}
    return {name: value for name, value in found.values.items() if name.startswith("EMISSARY_")}


@pytest.mark.parametrize("others", OTHERS)
def test_lines_of_other_programs_are_nobody_s_fault(others: str) -> None:
    assert ours(others + OURS) == ours(OURS + others) == ours(others + OURS + others) == FOUND


@given(st.lists(st.sampled_from([*OTHERS, OURS, OURS.replace("\n", "\r\n")]), max_size=12))
def test_whatever_stands_between_our_lines_are_found(parts: list[str]) -> None:
    text = "".join([*parts, OURS])
    assert ours(text.replace('QUOTE="is not closed\n', "")) == FOUND


@given(st.text("EMISARY_URL='\"#\\=: \r\n\ufeff", max_size=60))
def test_any_text_is_read_to_its_end(text: str) -> None:
    found = parse_env(text)
    assert not found.faults.keys() & found.values.keys()


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("EMISSARY_URL=wss://h/s # prod", "wss://h/s"),
        ("EMISSARY_URL = wss://h/s", "wss://h/s"),
        ("export EMISSARY_URL='wss://h/s'  # prod", "wss://h/s"),
        ('EMISSARY_URL="wss://h/s"', "wss://h/s"),
        ("EMISSARY_URL=wss://h/s#x", "wss://h/s#x"),
        ("EMISSARY_URL=${OTHER}", "${OTHER}"),
        ("\ufeffEMISSARY_URL=wss://h/s", "wss://h/s"),
        ('EMISSARY_URL="[{"kid":1}]"', '[{"kid":1}]'),
        ("EMISSARY_URL=first\nEMISSARY_URL=second", "second"),
    ],
)
def test_a_value_is_what_every_reader_of_such_files_takes_it_for(line: str, value: str) -> None:
    assert ours(f"{line}\n") == {"EMISSARY_URL": value}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("EMISSARY_URL: wss://hunter2/s", "line 3: EMISSARY_URL: want NAME=value"),
        ("EMISSARY_URL='wss://hunter2/s", "line 3: EMISSARY_URL: a quote is not closed"),
        ('export EMISSARY_URL="wss://hunter2/s', "line 3: EMISSARY_URL: a quote is not closed"),
    ],
)
def test_a_line_of_ours_that_is_none_is_named_by_number_not_by_text(line: str, says: str) -> None:
    found = parse_env(f"\nA=1\n{line}\nB=2\n")
    assert found.faults == {"EMISSARY_URL": says}
    assert found.values == {"A": "1", "B": "2"}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_file_is_read_in_whatever_an_editor_wrote(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / ".env"
    file.write_text(f"# \u00e9\n{OURS}", encoding=encoding)
    assert ours(read_text(file)) == FOUND


def test_a_line_of_others_in_another_encoding_harms_nothing(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_bytes(b"NAME=\xe9\xff\n" + OURS.encode())
    assert ours(read_text(file)) == FOUND


@with_pipes
def test_a_pipe_that_somebody_fills_is_read(tmp_path: Path) -> None:
    pipe = tmp_path / ".env"
    os.mkfifo(pipe)

    def fill() -> None:
        with open(pipe, "w", encoding="utf-8") as file:
            for line in OURS.splitlines(keepends=True):
                file.write(line)
                file.flush()

    filler = threading.Thread(target=fill)
    filler.start()
    try:
        assert ours(read_text(pipe, 60.0)) == FOUND
    finally:
        filler.join()


@with_pipes
def test_a_pipe_that_nobody_fills_is_given_up(tmp_path: Path) -> None:
    pipe = tmp_path / ".env"
    os.mkfifo(pipe)
    with pytest.raises(ConfigError, match=r"a pipe that nobody has filled within 0\.05 s"):
        read_text(pipe, 0.05)


@pytest.mark.parametrize(
    ("name", "says"),
    [("absent", "cannot be read: No such file"), (".", "is a directory"), ("a\0b", "is no path")],
)
def test_what_is_no_file_is_named(tmp_path: Path, name: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        read_text(tmp_path / name)


def test_a_file_that_is_no_settings_file_at_all_is_not_read_whole(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    with file.open("wb") as big:
        big.truncate(MAX_SIZE + 1)
    with pytest.raises(ConfigError, match="more than"):
        read_text(file)
