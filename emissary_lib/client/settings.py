"""Where the platform's side looks for settings: arguments, environment, a file that is named, ``.env``.

Each setting comes from the first of these that has it. A file is opened only for what is not found before it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
from collections.abc import Collection, Iterator, Mapping
from typing import Final

from emissary_lib.client.env_file import EnvFile, parse_env, read_text
from emissary_lib.exceptions import ConfigError
from emissary_lib.protocol.auth.keys import shown, unquote
from emissary_lib.protocol.record import Record, hidden
from emissary_lib.system import FILE_MODES

logger = logging.getLogger("emissary_lib.config")

#: Names a file of settings; the command's ``--env-file`` does as well.
ENV_FILE: Final = "EMISSARY_ENV_FILE"

#: The file that is looked into although nobody names it.
DEFAULT_FILE: Final = ".env"

#: Where a setting was found, of those that are in no file.
ARGUMENT: Final = "an argument"
ENVIRONMENT: Final = "the environment"

#: What all of ours begin with.
_PREFIX: Final = "EMISSARY_"

#: How alike a name must be to one that is missing, to be shown as perhaps meant.
_ALIKE: Final = 0.85


class Setting(Record):
    """A value, and where it was found.

    Attributes:
        text: Without blanks around it and without one outer pair of quotes; never empty.
        source: In words: ``the environment``, or the path of a file.
    """

    text: str = hidden()
    source: str = ""


class SettingsReader:
    """Finds settings by name.

    Args:
        environ: The environment; ``None`` for the process's.
        arguments: What goes before it.
        env_file: A file to read after it, which must be there; ``None`` for the one that
            ``EMISSARY_ENV_FILE`` names, if it does.
        default_file: A file to read last, which need not be there.

    Thread safety: none.
    """

    def __init__(
        self,
        environ: Mapping[str, str] | None = None,
        *,
        arguments: Mapping[str, str] | None = None,
        env_file: str | os.PathLike[str] | None = None,
        default_file: str | os.PathLike[str] | None = DEFAULT_FILE,
    ) -> None:
        self.environ = os.environ if environ is None else environ
        self._arguments = arguments or {}
        named = env_file if env_file is not None else unquote(self.environ.get(ENV_FILE, "").strip()) or None
        self._files = [] if named is None else [_File(named, named=True)]
        if default_file is not None and default_file != named:
            self._files.append(_File(default_file, named=False))

    def find(self, name: str, *, needed: bool = False) -> Setting | None:
        """The setting from the first place that has it; an empty one counts as not there.

        Args:
            name: As in example.env.
            needed: Whether nothing goes without it: only then is a pipe in a file's place waited for.

        Raises:
            ConfigError: A file that was named cannot be read, or the line with this name is none.
        """
        return self.find_first((name,), needed=needed).get(name)

    def find_first(self, names: tuple[str, ...], *, needed: bool = False) -> dict[str, Setting]:
        """Those of some settings that exclude each other which the first place has that has any.

        Raises:
            ConfigError: As :meth:`find`.
        """
        for source, values in ((ARGUMENT, self._arguments), (ENVIRONMENT, self.environ)):
            if found := _pick(names, values, source):
                return found
        for file in self._files:
            content = file.content(wait=needed)
            for name in names:
                if fault := content.faults.get(name):
                    raise ConfigError(f"{file.path}, {fault}")
            if found := _pick(names, content.values, str(file.path)):
                return found
        return {}

    def where(self) -> str:
        """Where all was looked, for whoever misses something there."""
        return "looked in " + ", ".join([ENVIRONMENT, *self.files()])

    def files(self) -> list[str]:
        """The files in the order in which they are looked into, each with what is wrong with it."""
        return [file.describe() for file in self._files]

    def check_files(self) -> None:
        """See that the file that was named can be read.

        Raises:
            ConfigError: It cannot.
        """
        for file in self._files:
            file.content(wait=False)

    def others(self, known: Collection[str]) -> dict[str, str]:
        """Names that look like ours and are not known, each with its source.

        Such are all that begin as ours do, and those that are no more than misspelt.
        """
        from difflib import get_close_matches

        found: dict[str, str] = {}
        for names, source in self._given():
            for name in sorted(names):
                meant = name.upper()
                ours = meant.startswith(_PREFIX) or get_close_matches(meant, known, n=1, cutoff=_ALIKE)
                if ours and name not in known:
                    found.setdefault(name, source)
        return found

    def suggest(self, name: str) -> str:
        """A name that is set and may have been meant for ``name``, in words; or nothing."""
        import difflib  # only who is at a loss has to load it

        others = {each.upper(): each for names, _source in self._given() for each in names if each != name}
        alike = difflib.get_close_matches(name, others, n=1, cutoff=_ALIKE)
        return f" (but {others[alike[0]]} is)" if alike else ""

    def _given(self) -> Iterator[tuple[Collection[str], str]]:
        """All names that are set, by where they are; those of a file that cannot be read are not."""
        yield self.environ, ENVIRONMENT
        for file in self._files:
            with contextlib.suppress(ConfigError):
                content = file.content(wait=False)
                yield {*content.values, *content.faults}, str(file.path)


class _File:
    """One file of settings, read once."""

    def __init__(self, path: str | os.PathLike[str], *, named: bool) -> None:
        self.path = path
        self._named = named
        self._content: EnvFile | None = None
        self._error: ConfigError | None = None
        self._fault = ""

    def content(self, *, wait: bool) -> EnvFile:
        """What it says; nothing, if nobody named it and it cannot be read or is not to be waited for.

        Raises:
            ConfigError: It was named, and cannot be read.
        """
        if self._error is not None:
            raise self._error
        if self._content is None:
            if not wait and _is_pipe(self.path):
                return EnvFile({})
            self._content = self._read()
        return self._content

    def describe(self) -> str:
        """Its path, and what is wrong with it."""
        return f"{_absolute(self.path)} ({self._fault})" if self._fault else _absolute(self.path)

    def _read(self) -> EnvFile:
        if not self._named and not os.path.lexists(self.path):
            self._fault = "not there"
            return EnvFile({})
        try:
            found = parse_env(read_text(os.path.expanduser(self.path)))
        except ConfigError as exc:
            self._fault = str(exc)
            if self._named:
                self._error = ConfigError(
                    f"the file of settings {shown(str(self.path))} {exc}; correct --env-file or {ENV_FILE}"
                )
                raise self._error from exc
            return EnvFile({})
        warn_of_writers(self.path, holds_keys="EMISSARY_AUTH_KEYS" in found.values)
        return found


def _pick(names: tuple[str, ...], values: Mapping[str, str], source: str) -> dict[str, Setting]:
    given = {name: unquote(values.get(name, "").strip()).strip() for name in names}
    return {name: Setting(text, source) for name, text in given.items() if text}


def _absolute(path: str | os.PathLike[str]) -> str:
    try:
        return os.path.abspath(path)
    except OSError:  # the directory we are in is gone
        return str(path)


def _is_pipe(path: str | os.PathLike[str]) -> bool:
    try:
        return stat.S_ISFIFO(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def warn_of_writers(path: str | os.PathLike[str], *, holds_keys: bool) -> None:
    """Warn, once, on the logger ``emissary_lib.config``, of a file with keys that others may write."""
    fault = writers_fault(path) if holds_keys else ""
    if fault and str(path) not in _warned:
        _warned.add(str(path))
        logger.warning("%s: chmod 600 %s", fault, path)


#: Files that were warned of.
_warned: set[str] = set()


def writers_fault(path: str | os.PathLike[str]) -> str:
    """What is wrong with who may write a file with keys; empty if nothing is, or if it is no file."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):  # gone meanwhile
        return ""
    mode = stat.S_IMODE(found.st_mode)
    # Windows has no such bits: what Python shows for them says nothing.
    if not FILE_MODES or not stat.S_ISREG(found.st_mode) or not mode & (stat.S_IWGRP | stat.S_IWOTH):
        return ""
    return f"{path} holds keys, and others may write it (mode {mode:04o})"
