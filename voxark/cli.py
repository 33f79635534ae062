"""The one wrapper round typer: Kaldi's command-line conventions for every program of bin/.

``@cli.program`` turns a typed function into a program. Its plain parameters are positional arguments, its
keyword-only parameters are options, and a keyword-only parameter whose type is a dataclass contributes each
field of it as an option. The wrapper adds the standard options, echoes the command line, sets up logging,
turns every error into one line and an exit status, and lets signals unwind the stack so that no half-written
file is left behind.
"""

import dataclasses
import functools
import inspect
import logging
import os
import signal
import sys
import types
import typing
from typing import Annotated, Literal

STANDARD_HELP = {
    "config": "Configuration file to read first; it holds lines --name=value, and the command line wins.",
    "print-args": "Print the command line (to standard error).",
    "verbose": "Verbose level: -1 warnings only, 0 normal, 1 detail, 2 also the traceback of an error.",
    "allow-pipes": "If false, refuse every pipe in an rspecifier, wspecifier or file name.",
    "num-threads": "Number of threads of the linear algebra library.",
    "failed-list": "File to write a line `key reason` to for every key that failed.",
    "help": "Print this text.",
}


def _limit_blas_threads(argv):
    """Set the BLAS threads before numpy is loaded: 1 unless --num-threads or the environment says more."""
    count = None
    for i, word in enumerate(argv):
        name, equals, value = word.replace("_", "-").partition("=")
        if name == "--num-threads":
            count = value if equals else (argv[i + 1] if i + 1 < len(argv) else None)
    for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        if count is not None and count.isdigit():
            os.environ[variable] = count
        else:
            os.environ.setdefault(variable, "1")


_limit_blas_threads(sys.argv[1:])

from voxark.errors import VoxarkError  # noqa: E402 - after the threads are set

logger = logging.getLogger("voxark")


class Stopped(BaseException):
    """SIGTERM arrived; it unwinds the stack as KeyboardInterrupt does, so that outputs are cleaned up."""


class UsageError(Exception):
    """The command line is wrong: the usage is printed before the message."""


# ---------------------------------------------------------------------------------------------- counts, progress

_ledger = []  # (key, reason) of every failed key of this process, for --failed-list


class Counts:
    """Counts done and failed keys; the last log line of a program and its exit status come from here."""

    def __init__(self, what="keys"):
        self.what = what
        self.num_done = 0
        self.num_failed = 0

    def done(self, number=1):
        """Count keys that went well."""
        self.num_done += number

    def fail(self, key, reason):
        """Count one failed key, warn about it and remember it for --failed-list."""
        self.num_failed += 1
        _ledger.append((key, reason))
        logger.warning("%s: %s", key, reason)

    def finish(self, *readers):
        """Add the entries that permissive readers skipped, log the counts, return the exit status."""
        for reader in readers:
            for key, reason in reader.skipped:
                self.num_failed += 1
                _ledger.append((key, reason))
        logger.info("done %d, failed %d%s", self.num_done, self.num_failed, f" ({self.what})" if self.what else "")
        return 0 if self.num_done else 1


def progress(iterable, total=None, description=None):
    """Wrap an iterable in a progress bar when standard error is a terminal; else return it unchanged."""
    if not sys.stderr.isatty() or logger.level > logging.INFO:
        return iterable
    from tqdm import tqdm

    return tqdm(iterable, total=total, desc=description, dynamic_ncols=True, leave=False, mininterval=0.5)


# ---------------------------------------------------------------------------------------------- the declaration


@dataclasses.dataclass
class _Parameter:
    """One option or positional argument: how it is called, typed and explained."""

    name: str  # the option's name with dashes, or the positional's name with underscores
    path: tuple  # where the value goes: (parameter,) or (parameter, field, ...)
    type: object
    default: object
    help: str = ""
    standard: bool = False


@dataclasses.dataclass
class _Program:
    name: str
    doc: str
    positionals: list
    options: dict  # name -> _Parameter
    groups: dict  # path of a dataclass parameter -> the dataclass


def _plain_type(annotation):
    """Split ``Annotated[T, "help"]`` and ``T | None`` into T and the help text."""
    text = ""
    if typing.get_origin(annotation) is Annotated:
        annotation, *notes = typing.get_args(annotation)
        text = next((note for note in notes if isinstance(note, str)), "")
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        annotation = next(part for part in typing.get_args(annotation) if part is not type(None))
    return annotation, text


def _collect_options(program, path, annotation, default, text):
    plain, own_text = _plain_type(annotation)
    if dataclasses.is_dataclass(plain):
        program.groups[path] = plain
        hints = typing.get_type_hints(plain, include_extras=True)
        for field in dataclasses.fields(plain):
            value = None if field.default is dataclasses.MISSING else field.default
            _collect_options(program, path + (field.name,), hints[field.name], value, field.metadata.get("help", ""))
        return
    name = path[-1].replace("_", "-")
    if name in program.options:
        raise AssertionError(f"option --{name} is declared twice in {program.name}")
    program.options[name] = _Parameter(name, path, plain, default, own_text or text)


def _declare(function):
    """Read a program's declaration off its signature and its module's docstring."""
    program = _Program(
        name=os.path.basename(sys.argv[0]) or function.__module__,
        doc=inspect.cleandoc(sys.modules[function.__module__].__doc__ or ""),
        positionals=[],
        options={},
        groups={},
    )
    hints = typing.get_type_hints(function, include_extras=True)
    for parameter in inspect.signature(function).parameters.values():
        default = None if parameter.default is parameter.empty else parameter.default
        if parameter.kind is parameter.KEYWORD_ONLY:
            _collect_options(program, (parameter.name,), hints[parameter.name], default, "")
        else:
            item = _Parameter(parameter.name, (parameter.name,), str, parameter.default)
            item.repeated = parameter.kind is parameter.VAR_POSITIONAL
            item.required = not item.repeated and parameter.default is parameter.empty
            program.positionals.append(item)
    standards = {"config": (str, ""), "print-args": (bool, True), "verbose": (int, 0), "allow-pipes": (bool, True),
                 "num-threads": (int, 1), "failed-list": (str, ""), "help": (bool, False)}
    for name, (kind, default) in standards.items():
        program.options[name] = _Parameter(name, ("", name), kind, default, STANDARD_HELP[name], standard=True)
    return program


# ---------------------------------------------------------------------------------------------- Kaldi's syntax

_TRUE, _FALSE = ("true", "t", "1"), ("false", "f", "0")


def _boolean(name, value):
    if value.lower() in _TRUE:
        return "true"
    if value.lower() in _FALSE:
        return "false"
    raise UsageError(f"--{name}={value}: expected true or false")


def _find_option(program, name):
    """Return (option, negated); dashes and underscores are alike, and --no-NAME is --NAME=false."""
    name = name.replace("_", "-")
    if name in program.options:
        return program.options[name], False
    if name.startswith("no-") and name[3:] in program.options and program.options[name[3:]].type is bool:
        return program.options[name[3:]], True
    return None, False


def _normalise(program, words, values):
    """Put every option of ``words`` into ``values`` (name -> text) and return the positional arguments."""
    positionals, words = [], list(words)
    while words:
        word = words.pop(0)
        if word == "--":
            return positionals + words
        if not word.startswith("--"):
            if word.startswith("-") and len(word) > 1 and not word[1:2].isdigit():
                if word == "-h":
                    word = "--help"
                else:
                    raise UsageError(f"{word}: options begin with two dashes (a file of this name is ./{word})")
            else:
                positionals.append(word)
                continue
        name, equals, value = word[2:].partition("=")
        option, negated = _find_option(program, name)
        if option is None:
            raise UsageError(f"unknown option --{name}")
        if option.type is bool:
            if not equals and not negated and words and words[0].lower() in ("true", "false"):
                equals, value = "=", words.pop(0)
            if negated and equals:
                raise UsageError(f"--{name} takes no value")
            values[option.name] = "false" if negated else _boolean(name, value) if equals else "true"
        else:
            if not equals:
                if not words or words[0].startswith("--"):
                    raise UsageError(f"--{name} needs a value (--{name}=VALUE)")
                value = words.pop(0)
            values[option.name] = value
    return positionals


def _read_config(program, path, values):
    """Read ``--name=value  # comment`` lines; only options may stand in a configuration file."""
    try:
        with open(path, encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                word = line.split("#")[0].strip()
                if not word:
                    continue
                if not word.startswith("--"):
                    raise VoxarkError(f"{path}:{number}: expected --name=value, found {word!r}")
                name, equals, value = (part.strip() for part in word.partition("="))
                try:
                    _normalise(program, [name + equals + value], values)
                except UsageError as error:
                    raise VoxarkError(f"{path}:{number}: {error}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise VoxarkError(f"--config={path}: {getattr(error, 'strerror', None) or 'not a text file'}") from None


def _parse(program, argv):
    """Apply configuration file and command line through typer; return (positionals, option values)."""
    command_line = {}
    positionals = _normalise(program, argv, command_line)
    values = {}
    if command_line.get("config"):
        _read_config(program, command_line["config"], values)
    values.update(command_line)
    required = sum(item.required for item in program.positionals)
    repeated = any(item.repeated for item in program.positionals)
    if values.get("help") == "true":
        return [], {"help": True}
    if len(positionals) < required or (len(positionals) > len(program.positionals) and not repeated):
        raise UsageError(f"{len(positionals)} arguments given: {' '.join(positionals) or '(none)'}")
    return positionals, _convert(program, values)


def _convert(program, values):
    """Let typer convert the options' texts to their types and fill in the defaults."""
    import typer

    converted = {}

    def receive(**keywords):
        converted.update({option.name: keywords[option.name.replace("-", "_")] for option in program.options.values()})

    receive.__signature__ = inspect.Signature(
        [inspect.Parameter(option.name.replace("-", "_"), inspect.Parameter.KEYWORD_ONLY, default=option.default,
                           annotation=Annotated[str if option.type is bool else option.type,
                                                typer.Option("--" + option.name)])
         for option in program.options.values() if option.type is not bool])
    receive.__annotations__ = {p.name: p.annotation for p in receive.__signature__.parameters.values()}
    booleans = {option.name: values.get(option.name, str(option.default).lower()) == "true"
                for option in program.options.values() if option.type is bool}

    @functools.wraps(receive)
    def call(**keywords):
        receive(**keywords, **{name.replace("-", "_"): value for name, value in booleans.items()})

    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(add_help_option=False)(call)
    words = [f"--{name}={value}" for name, value in values.items() if program.options[name].type is not bool]
    try:
        typer.main.get_command(app).main(words, prog_name=program.name, standalone_mode=False)
    except Exception as error:
        message = getattr(error, "format_message", None)
        if message is None:
            raise
        raise UsageError(message()) from None
    for name, value in converted.items():
        if isinstance(value, float) and value != value:
            raise UsageError(f"--{name}=nan: not a number")
    return converted


def _arguments(program, function, positionals, values):
    """Build the call of the program's function: positionals, options, dataclasses of options."""
    def build(path):
        if path in program.groups:
            kind = program.groups[path]
            return kind(**{field.name: build(path + (field.name,)) for field in dataclasses.fields(kind)})
        return values[path[-1].replace("_", "-")]

    keywords = {parameter.name: build((parameter.name,))
                for parameter in inspect.signature(function).parameters.values()
                if parameter.kind is parameter.KEYWORD_ONLY}
    return positionals, keywords


# ---------------------------------------------------------------------------------------------- help and log


def usage(program):
    """The text of --help: the module's docstring, the options with their defaults, the standard options."""
    lines = [program.doc, ""]
    for title, standard in (("Options:", False), ("Standard options:", True)):
        chosen = [option for option in program.options.values() if option.standard is standard]
        if not chosen:
            continue
        lines.append(title)
        width = min(32, max(len(option.name) for option in chosen) + 2)
        for option in chosen:
            kind = option.type
            if typing.get_origin(kind) is Literal:
                kind_name = "|".join(str(choice) for choice in typing.get_args(kind))
            else:
                kind_name = {str: "string", bool: "bool"}.get(kind, getattr(kind, "__name__", ""))
            default = str(option.default).lower() if option.type is bool else option.default
            default = '""' if default in ("", None) else default
            lines.append(f"  {'--' + option.name:<{width}} : {option.help} ({kind_name}, default = {default})")
        lines.append("")
    return "\n".join(lines)


class _Formatter(logging.Formatter):
    def __init__(self, program_name):
        super().__init__()
        self.program_name = program_name

    def format(self, record):
        level = {"INFO": "LOG", "DEBUG": "VLOG"}.get(record.levelname, record.levelname)
        text = f"{level} ({self.program_name}) {record.getMessage()}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return text


class _Handler(logging.StreamHandler):
    """Writes below a progress bar without tearing it, and ignores a closed standard error."""

    def emit(self, record):
        tqdm = sys.modules.get("tqdm")
        if tqdm is not None and sys.stderr.isatty():
            tqdm.tqdm.write(self.format(record), file=sys.stderr)
        else:
            super().emit(record)


def _set_up_logging(program_name, verbose):
    logging.raiseExceptions = False  # a reader that has gone away is no reason to fail
    handler = _Handler(sys.stderr)
    handler.setFormatter(_Formatter(program_name))
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(logging.WARNING if verbose < 0 else logging.INFO if verbose == 0 else logging.DEBUG)


def _echo(program_name, argv):
    import shlex

    print(" ".join([program_name] + [shlex.quote(word) for word in argv]), file=sys.stderr, flush=True)


# ---------------------------------------------------------------------------------------------- running


def _on_sigterm(signum, frame):
    raise Stopped()


def _die_by(signum):
    """End as a C program ends: by the signal itself, so that the shell and the launcher see it."""
    try:
        sys.stderr.flush()
    except OSError:
        pass
    signal.signal(signum, signal.SIG_DFL)
    os.kill(os.getpid(), signum)


def _explain_os_error(error):
    name = error.filename if error.filename is not None else ""
    return f"{name}: {error.strerror or error}" if name else (error.strerror or str(error))


def _write_ledger(path):
    from voxark import tables

    with tables.open_text_output(path) as out:
        for key, reason in _ledger:
            out.write(f"{key} {reason}\n")


def _run(program, function, argv):
    """Parse, set up, run; return the exit status. Signals and broken pipes leave as exceptions."""
    positionals, values = _parse(program, argv)
    if values["help"]:
        print(usage(program))
        return 0
    if values["print-args"]:
        _echo(program.name, argv)
    _set_up_logging(program.name, values["verbose"])
    if not values["allow-pipes"]:
        os.environ["VOXARK_ALLOW_PIPES"] = "0"
    positional_values, keywords = _arguments(program, function, positionals, values)
    try:
        status = function(*positional_values, **keywords)
        sys.stdout.flush()
    finally:
        if values["failed-list"]:
            _write_ledger(values["failed-list"])
    return 0 if status is None else int(status)


def program(function):
    """Decorate a program's ``main`` function: calling it without arguments runs it on ``sys.argv``.

    The function returns an exit status (None counts as 0). See the module's docstring for how its signature
    becomes the command line.
    """

    @functools.wraps(function)
    def main():
        signal.signal(signal.SIGTERM, _on_sigterm)
        argv = sys.argv[1:]
        declared = _declare(function)
        _set_up_logging(declared.name, 0)
        status = 1
        try:
            status = _run(declared, function, argv)
        except UsageError as error:
            print(usage(declared), file=sys.stderr)
            _echo(declared.name, argv)
            logger.error("%s", error)
        except VoxarkError as error:
            logger.error("%s", error, exc_info=logger.isEnabledFor(logging.DEBUG) and "--verbose=2" in argv)
        except BrokenPipeError:
            _die_by(signal.SIGPIPE)
        except (KeyboardInterrupt, Stopped) as error:
            stop = signal.SIGINT if isinstance(error, KeyboardInterrupt) else signal.SIGTERM
            logger.error("stopped by %s; unfinished outputs were removed", stop.name)
            _die_by(stop)
        except OSError as error:
            logger.error("%s", _explain_os_error(error))
        except MemoryError as error:
            logger.error("out of memory: %s", error)
        except Exception as error:  # a defect of voxark: say so in one line, with the traceback on request
            logger.error("internal error: %s: %s (--verbose=2 shows where)", type(error).__name__, error,
                         exc_info="--verbose=2" in argv)
        _leave(status)

    return main


def _leave(status):
    """Exit at once: the interpreter's tear-down costs time and can only add noise after the last flush."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _die_by(signal.SIGPIPE)
    except OSError as error:
        logger.error("standard output: %s", error.strerror or error)
        status = status or 1
    try:
        sys.stderr.flush()
    except OSError:
        pass
    os._exit(status)
