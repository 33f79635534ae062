"""Command lines in Kaldi's syntax: from a typed function to its options, from words to its arguments.

The function's plain parameters are positional arguments, its keyword-only parameters are options, and a
keyword-only parameter whose type is a dataclass contributes each field of it as an option. typer turns the
texts of options into values of their types.
"""

import dataclasses
import inspect
import os
import sys
import types
import typing
from typing import Annotated, Literal

from voxark.errors import VoxarkError

_STANDARD = {  # name -> type, default, help
    "config": (str, "", "Configuration file of lines --name=value to read first; the command line wins."),
    "print-args": (bool, True, "Print the command line (to standard error)."),
    "verbose": (int, 0, "Verbose level: -1 warnings only, 0 normal, 1 detail, 2 also tracebacks of errors."),
    "allow-pipes": (bool, True, "If false, refuse every pipe in an rspecifier, wspecifier or file name."),
    "num-threads": (int, 1, "Number of threads of the linear algebra library."),
    "failed-list": (str, "", "File to write a line `key reason` to for every key that failed."),
    "help": (bool, False, "Print this text."),
}


class UsageError(Exception):
    """The command line is wrong: the usage is printed before the message."""


# -------------------------------------------------------------------------------------------- the declaration


@dataclasses.dataclass
class Positional:
    """A positional argument: ``required``, optional, or, if ``repeated``, any number."""

    name: str
    required: bool
    repeated: bool


@dataclasses.dataclass
class Option:
    """One option: how it is called, typed and explained."""

    name: str  # with dashes
    type: object
    default: object
    help: str
    standard: bool = False


@dataclasses.dataclass
class Program:
    """What a function declares: its positional arguments, options and groups of options."""

    name: str
    doc: str
    positionals: list
    options: dict  # name -> Option
    keywords: dict  # keyword -> name of an option, or (dataclass, keywords of its fields)
    shows_tracebacks: bool = False


def _plain_type(annotation):
    """Split ``Annotated[T, "help"]`` and ``T | None`` into T and the help text."""
    text = ""
    if typing.get_origin(annotation) is Annotated:
        annotation, *notes = typing.get_args(annotation)
        text = next((note for note in notes if isinstance(note, str)), "")
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        annotation = next(part for part in typing.get_args(annotation) if part is not type(None))
    return annotation, text


def _declare_option(options, keyword, annotation, default, text=""):
    """Add an option, or all fields of a dataclass, to ``options``; return the entry of Program.keywords."""
    plain, own_text = _plain_type(annotation)
    if dataclasses.is_dataclass(plain):
        hints = typing.get_type_hints(plain, include_extras=True)
        return plain, {
            field.name: _declare_option(options, field.name, hints[field.name], _value_or_none(field.default),
                                        field.metadata.get("help", ""))
            for field in dataclasses.fields(plain)}
    name = keyword.replace("_", "-")
    if name in options:
        raise AssertionError(f"option --{name} is declared twice")
    options[name] = Option(name, plain, default, own_text or text)
    return name


def _value_or_none(default):
    return None if default in (dataclasses.MISSING, inspect.Parameter.empty) else default


def declare(function):
    """Read a program's declaration off its signature and its module's docstring."""
    options, positionals, keywords = {}, [], {}
    hints = typing.get_type_hints(function, include_extras=True)
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY:
            keywords[parameter.name] = _declare_option(options, parameter.name, hints[parameter.name],
                                                       _value_or_none(parameter.default))
        else:
            repeated = parameter.kind is parameter.VAR_POSITIONAL
            required = not repeated and parameter.default is parameter.empty
            positionals.append(Positional(parameter.name, required, repeated))
    for name, (kind, default, text) in _STANDARD.items():
        options[name] = Option(name, kind, default, text, standard=True)
    doc = inspect.cleandoc(sys.modules[function.__module__].__doc__ or "")
    return Program(os.path.basename(sys.argv[0]) or function.__module__, doc, positionals, options, keywords)


# --------------------------------------------------------------------------------------------- Kaldi's syntax

_TRUE, _FALSE = ("true", "t", "1"), ("false", "f", "0")


def _boolean(name, value):
    if value.lower() in _TRUE:
        return True
    if value.lower() in _FALSE:
        return False
    raise UsageError(f"--{name}={value}: expected true or false")


def _find_option(program, name):
    """Return (option, negated); dashes and underscores are alike, and --no-NAME is --NAME=false."""
    dashed = name.replace("_", "-")
    if dashed in program.options:
        return program.options[dashed], False
    option = program.options.get(dashed[3:]) if dashed.startswith("no-") else None
    if option is not None and option.type is bool:
        return option, True
    import difflib

    close = difflib.get_close_matches(dashed, program.options, 1)
    raise UsageError(f"unknown option --{name}" + (f" (did you mean --{close[0]}?)" if close else ""))


def _take_option(program, word, following, found):
    """Add (option, value) of ``word`` to ``found``; the value may be the first of the words ``following``."""
    name, equals, value = word[2:].partition("=")
    option, negated = _find_option(program, name)
    if option.type is bool:
        if not equals and not negated and following and following[0].lower() in ("true", "false"):
            equals, value = "=", following.pop(0)
        if negated and equals:
            raise UsageError(f"--{name} takes no value")
        value = not negated if not equals else _boolean(name, value)
    elif not equals:
        if not following or following[0].startswith("--"):
            raise UsageError(f"--{name} needs a value (--{name}=VALUE)")
        value = following.pop(0)
    found.append((option, value))


def _split(program, words):
    """Split the words of a command line into positional arguments and a list of (option, value)."""
    positionals, found, words = [], [], list(words)
    while words:
        word = words.pop(0)
        if word == "--":
            return positionals + words, found
        if word == "-h":
            word = "--help"
        if word.startswith("--"):
            _take_option(program, word, words, found)
        elif len(word) > 1 and word[0] == "-" and not word[1].isdigit():
            raise UsageError(f"{word}: options begin with two dashes (a file of this name is ./{word})")
        else:
            positionals.append(word)
    return positionals, found


def _read_config(program, path):
    """Read the lines ``--name=value  # comment`` of a configuration file into a list of (option, value)."""
    found = []
    try:
        with open(path, encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):
                word = line.split("#")[0].strip()
                if word:
                    found.append(_config_option(program, word, f"{path}:{number}"))
    except (OSError, UnicodeDecodeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise VoxarkError(f"--config={path}: {reason}") from None
    return found


def _config_option(program, word, place):
    name, equals, value = (part.strip() for part in word.partition("="))
    if not name.startswith("--") or name == "--":
        raise VoxarkError(f"{place}: expected --name=value, found {word!r}")
    found = []
    try:
        _take_option(program, name + equals + value, [], found)
    except UsageError as error:
        raise VoxarkError(f"{place}: {error}") from None
    option = found[0][0].name
    if option in ("config", "help", "num-threads"):
        raise VoxarkError(f"{place}: --{option} belongs on the command line")
    return found[0]


def _check_number(program, positionals):
    required = sum(item.required for item in program.positionals)
    most = None if any(item.repeated for item in program.positionals) else len(program.positionals)
    if len(positionals) < required or (most is not None and len(positionals) > most):
        wanted = f"{required}" + (" or more" if most is None else f" to {most}" if most > required else "")
        raise UsageError(f"wrong number of arguments: {wanted} expected, {len(positionals)} given"
                         + (f": {' '.join(positionals)}" if positionals else ""))


def parse(program, words):
    """Apply configuration files and command line; return (positional arguments, values of all options).

    Raises UsageError for a wrong command line, VoxarkError for a wrong configuration file. With ``--help``
    nothing else counts.
    """
    if _asks_for_help(words):
        return [], {"help": True}
    positionals, found = _split(program, words)
    values = {}
    for path in [value for option, value in found if option.name == "config" and value]:
        values.update((option.name, value) for option, value in _read_config(program, path))
    values.update((option.name, value) for option, value in found)
    _check_number(program, positionals)
    return positionals, {**{option.name: option.default for option in program.options.values()},
                         **_convert(program, values)}


def _asks_for_help(words):
    before = words[: words.index("--")] if "--" in words else words
    return "--help" in before or "-h" in before


def _convert(program, values):
    """Let typer convert the options' texts to their types; booleans are converted already."""
    texts = {name: value for name, value in values.items() if program.options[name].type is not bool}
    if not texts:
        return values
    import typer

    def receive(**converted):
        return converted

    types_of = {name: Annotated[program.options[name].type, typer.Option("--" + name)] for name in texts}
    parameters = [inspect.Parameter(name.replace("-", "_"), inspect.Parameter.KEYWORD_ONLY, annotation=kind)
                  for name, kind in types_of.items()]
    receive.__signature__ = inspect.Signature(parameters)
    receive.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(add_help_option=False)(receive)
    try:
        converted = typer.main.get_command(app).main([f"--{name}={text}" for name, text in texts.items()],
                                                     prog_name=program.name, standalone_mode=False)
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        raise UsageError(error.format_message().replace("\n", " ")) from None
    for name, value in converted.items():
        if value != value:
            raise UsageError(f"--{name.replace('_', '-')}={texts[name.replace('_', '-')]}: not a number")
    if converted.get("num_threads", 1) < 1:
        raise UsageError(f"--num-threads={texts['num-threads']}: at least one thread is expected")
    return {**values, **{name: converted[name.replace("-", "_")] for name in texts}}


def arguments(keywords, values):
    """The keyword arguments of the program's function: options, and dataclasses filled with options."""
    return {keyword: values[entry] if isinstance(entry, str) else entry[0](**arguments(entry[1], values))
            for keyword, entry in keywords.items()}


def read_options(kind, path):
    """A dataclass of options filled from a configuration file of lines ``--name=value``; "" gives its defaults."""
    program = declare(_takes(kind))
    try:
        _, values = parse(program, [f"--config={path}"] if path else [])
    except UsageError as error:
        raise VoxarkError(f"{path}: {error}") from None
    return arguments(program.keywords, values)["options"]


def _takes(kind):
    def declared(*, options):
        pass

    declared.__annotations__["options"] = kind
    return declared


# ------------------------------------------------------------------------------------------------------- help


def usage(program):
    """The text of --help: the module's docstring, the options with their defaults, the standard options."""
    lines = [program.doc, ""]
    for title, standard in (("Options:", False), ("Standard options:", True)):
        chosen = [option for option in program.options.values() if option.standard is standard]
        if chosen:
            width = min(32, max(len(option.name) for option in chosen) + 2)
            lines += [title, *(_describe(option, width) for option in chosen), ""]
    return "\n".join(lines)


def _describe(option, width):
    if typing.get_origin(option.type) is Literal:
        kind = "|".join(str(choice) for choice in typing.get_args(option.type))
    else:
        kind = {str: "string"}.get(option.type, option.type.__name__)
    default = str(option.default).lower() if option.type is bool else option.default
    shown = '""' if default in ("", None) else default
    return f"  {'--' + option.name:<{width}} : {option.help} ({kind}, default = {shown})"
