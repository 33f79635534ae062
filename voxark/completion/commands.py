"""What can be completed: programs with the options that they declare, scripts with those of their help."""

import contextlib
import io
import os
import re
import runpy
import sys
import typing
from dataclasses import dataclass

from voxark import command_help

_ITEM = re.compile(r"""--([a-z][a-z0-9-]*)(?:[ =](?!-)(<[^>]*>|\\?".*?"|[^\s,]\S*?)(?=,? |,?$))?""")
_CHOICES = re.compile(r"<?(\w+(?:\|\w+)+)>?")
_DELEGATES = re.compile(r'^exec python3 .*/(\w+\.py)" (\w+) "\$@"', re.MULTILINE)
_BOOLEAN = ("true", "false")


@dataclass(frozen=True)
class CompletedOption:
    """An option: its name, the values to choose from (none: any), its help, whether it takes a value."""

    name: str
    choices: tuple = ()
    help: str = ""
    takes_value: bool = True


@dataclass(frozen=True)
class CompletedCommand:
    """A program (``key``: its name) or a script (``key``: its path below the checkout), and its options."""

    key: str
    options: tuple

    @property
    def name(self):
        """What is typed: the name without folders."""
        return self.key.rpartition("/")[2]


def program_command(program, options=None):
    """The command of a voxark.command_line.Program; ``options``: these in place of those that are its own."""
    if options is None:
        options = [option for option in program.options.values() if not option.standard]
    return CompletedCommand(program.name, tuple(map(_completed, options)))


def _completed(option):
    text = command_help.first_sentence(option.help)
    return CompletedOption(option.name, _choices(option.type), text, takes_value=option.name != "help")


def _choices(kind):
    if kind is bool:
        return _BOOLEAN
    return tuple(map(str, typing.get_args(kind))) if typing.get_origin(kind) is typing.Literal else ()


def script_commands(root):
    """The commands of steps/, utils/ and egs/ of a checkout whose help names options."""
    commands = []
    folders = ("steps", "utils", *command_help.recipe_folders(root))
    for path, source in command_help.scripts_of(root, *folders).items():
        delegate = _DELEGATES.search(source)
        if delegate:
            folder = os.path.dirname(os.path.join(root, path))
            text = _help_of_tool(os.path.join(folder, delegate[1]), delegate[2])
        else:
            text = command_help.help_text(source, command_help.sourced_by(source, root))
        options = options_of(text)
        if options:
            last = CompletedOption("help", (), "Print what it does, and its options", False)
            commands.append(CompletedCommand(path, (*options, last)))
    return commands


def options_of(text):
    """The options that lines of a help text begin with, such as `--size tiny|small  of it`."""
    found, before = {}, ""
    for line in map(str.strip, text.split("\n")):
        if line.startswith("--") and not before.endswith("\\"):  # else an example goes on
            for name, value, explanation in _items(line):
                choices = _CHOICES.fullmatch(value or "")
                values = tuple(choices[1].split("|")) if choices else ()
                found.setdefault(name, CompletedOption(name, values, explanation, value is not None))
        before = line
    found.pop("help", None)
    return tuple(found.values())


def _items(line):
    """[(name, placeholder of the value or None, explanation)] of `--one, --two X  explanation`."""
    found, place, rest = [], 0, ""
    while item := _ITEM.match(line, place):
        found.append((item[1], item[2]))
        separator = re.compile(",? (?=--)").match(line, item.end())
        place = separator.end() if separator else len(line)
        rest = line[item.end() :]
    text = re.sub(r"\\(.)", r"\1", re.sub(r"\s*\(default: .*", "", rest)).strip()
    return [(name, value or found[-1][1], text) for name, value in found]


def _help_of_tool(path, word):
    """What a Python tool prints for `path word --help`; it runs in this process, to be quick."""
    arguments, columns = sys.argv, os.environ.get("COLUMNS")
    out = io.StringIO()
    sys.argv, os.environ["COLUMNS"] = [path, word, "--help"], "200"
    try:
        with contextlib.redirect_stdout(out):
            runpy.run_path(path, run_name="__main__")
    except SystemExit:
        pass  # as argparse ends --help
    finally:
        sys.argv = arguments
        os.environ.pop("COLUMNS") if columns is None else os.environ.update(COLUMNS=columns)
    return out.getvalue()
