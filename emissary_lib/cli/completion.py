"""``emissary completion``: what a shell needs to complete the command's words with the Tab key.

The scripts ask the command itself, so that they fit whatever is installed, and need no package of their own.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Final

from emissary_lib.cli.output import standard_output
from emissary_lib.exit_status import Exit

SUMMARY: Final = "a script that has a shell complete this command's words"
DESCRIPTION: Final = """\
Print a script that has a shell complete commands, actions, options and their values when Tab is pressed. It
holds no list: it asks the installed command each time.
"""
EPILOG: Final = """\
examples:
  emissary completion bash
  emissary completion zsh
  emissary completion fish

where it goes:
  bash  ~/.local/share/bash-completion/completions/emissary, for the package bash-completion; or this line in
        ~/.bashrc: eval "$(emissary completion bash)"
  zsh   _emissary in a folder of fpath; or this line in ~/.zshrc, behind compinit:
        eval "$(emissary completion zsh)"
  fish  ~/.config/fish/completions/emissary.fish
"""
EXITS: Final[frozenset[Exit]] = frozenset()

#: What the scripts ask for: what can stand in the place of the last of the words behind ``--``.
_WORDS: Final = "words"

#: Names of values in a help that are files: shells know how to complete those.
_FILES: Final = ("FILE", "PATH")

_SEPARATOR: Final = "--"

SCRIPTS: Final = {
    "bash": """\
_emissary() {
    local IFS=$'\\n'
    COMPREPLY=($(emissary completion words -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2> /dev/null))
}
complete -o bashdefault -o default -F _emissary emissary
""",
    "zsh": """\
#compdef emissary
_emissary() {
    local -a found
    found=("${(@f)$(emissary completion words -- "${(@)words[2,CURRENT]}" 2> /dev/null)}")
    compadd -a found || _files
}
if [ "$funcstack[1]" = _emissary ]; then
    _emissary "$@"
else
    compdef _emissary emissary
fi
""",
    "fish": """\
function __emissary_words
    set -l before (commandline -opc)
    set -e before[1]
    set -l current (commandline -ct)
    emissary completion words -- $before "$current" 2> /dev/null
end
complete -c emissary -f -a '(__emissary_words)'
complete -c emissary -n 'contains -- -- (commandline -opc)' -F
""",
}


class _Shells(tuple[str, ...]):
    """The shells; what their scripts ask for is taken as well, and listed nowhere."""

    def __contains__(self, word: object) -> bool:
        return word == _WORDS or super().__contains__(word)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare its options and arguments."""
    parser.usage = f"{parser.prog} [-h] {{{','.join(SCRIPTS)}}}"
    parser.add_argument("what", choices=_Shells(SCRIPTS), metavar="SHELL", help=", ".join(SCRIPTS))


def run(args: argparse.Namespace) -> int:
    """Print a script, or what a script asks for."""
    from emissary_lib.cli.main import parser

    if args.what == _WORDS:
        *before, current = args.words or [""]
        chosen = next((word for word in before if not word.startswith("-")), "")
        text = "".join(f"{word}\n" for word in complete(parser({chosen}), before, current))
    else:
        text = SCRIPTS[args.what]
        if args.what == "fish":
            names = sorted(file_options(parser()))
            text += "".join(f"complete -c emissary -l {name} -rF\n" for name in names)
    standard_output().write(text)
    return Exit.OK


def complete(parser: argparse.ArgumentParser, before: Sequence[str], current: str) -> list[str]:
    """What a word can become.

    Args:
        parser: Of the whole command line; the command that ``before`` names must be complete.
        before: The words before it, without the program's name.
        current: What there is of the word.

    Returns:
        Whole words that begin with ``current``; none where anything can stand, as a target or a file.
    """
    awaited: argparse.Action | None = None  # the option whose value comes next
    for word in before:
        if word == _SEPARATOR:
            return []
        if awaited is not None:
            awaited = None
        elif word in parser._option_string_actions:
            option = parser._option_string_actions[word]
            awaited = option if option.nargs is None else None
        else:
            parser = _actions(parser).get(word, parser)
    if awaited is not None:
        found = list(map(str, awaited.choices or ()))
    elif current.startswith("-"):
        found = [name for name in parser._option_string_actions if name.startswith(_SEPARATOR)]
    else:
        found = list(_actions(parser)) or [
            str(choice) for each in parser._get_positional_actions() for choice in each.choices or ()
        ]
    return [word for word in found if word.startswith(current)]


def _actions(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The commands of the program, or the actions of a command."""
    found: dict[str, argparse.ArgumentParser] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found |= action.choices
    return found


def file_options(parser: argparse.ArgumentParser) -> set[str]:
    """The options of all commands whose value is a file, without their dashes."""

    def every(each: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
        yield each
        for inner in _actions(each).values():
            yield from every(inner)

    return {
        name.removeprefix(_SEPARATOR)
        for each in every(parser)
        for action in each._actions
        for name in action.option_strings
        if action.metavar in _FILES and name.startswith(_SEPARATOR)
    }
