"""The one wrapper round typer: Kaldi's command-line conventions for every program of bin/.

``@cli.program`` turns a typed function into a program; :mod:`voxark.command_line` says how its signature
becomes the command line. The wrapper adds the standard options, echoes the command line, sets up logging,
turns every error into one line and an exit status, and lets signals unwind the stack so that no half-written
file is left.
"""

import functools
import inspect
import itertools
import logging
import os
import signal
import sys
import types


def _open_standard_streams():
    """Occupy the numbers 0, 1 and 2 where the caller has closed them: no data file may get one of them."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed; reading finds nothing, and writing to the number fails where it matters
            os.open(os.devnull, os.O_WRONLY if number == 2 else os.O_RDONLY)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")


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


_open_standard_streams()
_limit_blas_threads(sys.argv[1:])

from voxark import command_line  # noqa: E402 - after the threads are set
from voxark.command_line import UsageError, read_options  # noqa: E402, F401 - programs read theirs through us
from voxark.errors import VoxarkError  # noqa: E402

logger = logging.getLogger("voxark")


class Stopped(BaseException):
    """SIGTERM or SIGHUP arrived; it unwinds the stack as KeyboardInterrupt does, so that outputs vanish."""


# ------------------------------------------------------------------------------------------- counts, progress

_ledger = []  # iterables of (key, reason) of the failed keys of this process, for --failed-list


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
        _ledger.append([(key, reason)])
        logger.warning("%s: %s", key, reason)

    def leave_out(self, number, entries):
        """Count ``number`` failed keys that were warned of together; ``entries``: (key, reason) of each.

        They may be too many to warn of one by one, or to hold: an iterator is run through at the end.
        """
        self.num_failed += number
        _ledger.append(entries)

    def finish(self, *readers):
        """Add the entries that permissive readers skipped, log the counts, return the exit status."""
        for reader in readers:
            self.leave_out(len(reader.skipped), reader.skipped)
        if not self.num_done:
            logger.warning("nothing was done%s", "" if self.num_failed else ": the input has no entries")
        what = f" ({self.what})" if self.what else ""
        logger.info("done %d, failed %d%s", self.num_done, self.num_failed, what)
        return 0 if self.num_done else 1


def warn_of_repeats(output, inputs):
    """Warn of statistics that count twice because a name, or a pattern of the shell, takes in too much."""
    for name in dict.fromkeys(inputs):
        if inputs.count(name) > 1:
            logger.warning("%s is given %d times, and counts so often", name, inputs.count(name))
    if output in inputs and output != "-":
        logger.warning("%s is among the statistics added up, and is replaced by their sum", output)


def progress(iterable, total=None, description=None):
    """Wrap an iterable in a progress bar when standard error is a terminal; else return it unchanged."""
    if not sys.stderr.isatty() or logger.level > logging.INFO:
        return iterable
    from tqdm import tqdm

    return tqdm(iterable, total=total, desc=description, dynamic_ncols=True, leave=False, mininterval=0.5)


# -------------------------------------------------------------------------------------------------------- log


class _Formatter(logging.Formatter):
    def __init__(self, program_name):
        super().__init__()
        self.program_name = program_name

    def format(self, record):
        level = {"INFO": "LOG", "DEBUG": "VLOG"}.get(record.levelname, record.levelname)
        text = f"{level} ({self.program_name}) {_on_one_line(record.getMessage())}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return text


def _on_one_line(text):
    """A message holds names and data of the user: keep what breaks lines or terminals out of the log."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\t" else c.encode("unicode_escape").decode() for c in text)


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


def _say(text):
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        pass  # nobody reads standard error any more


def _echo(program_name, argv):
    import shlex

    _say(_on_one_line(" ".join([program_name] + [shlex.quote(word) for word in argv])))


# ---------------------------------------------------------------------------------------------------- running


def _on_stop(signum, frame):
    raise Stopped(signum)


def _on_early_interrupt(kind, error, traceback, previous=sys.excepthook):
    """Ctrl-C while the modules are still loading."""
    if issubclass(kind, KeyboardInterrupt):
        _die_by(signal.SIGINT)
    previous(kind, error, traceback)


sys.excepthook = _on_early_interrupt


def _catch_signals():
    for signum in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(signum) == signal.SIG_DFL:  # nohup ignores SIGHUP: leave it so
            signal.signal(signum, _on_stop)


def _remove_unfinished():
    """Remove outputs that no ``with`` statement took care of when a signal came; return their names."""
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    outputs = sys.modules.get("voxark.io.outputs")
    return outputs.remove_unfinished() if outputs is not None else []


def _die_by(signum):
    """End as a C program ends: by the signal itself, so that the shell and the launcher see it."""
    _remove_unfinished()
    try:
        sys.stderr.flush()
    except OSError:
        pass
    signal.signal(signum, signal.SIG_DFL)
    os.kill(os.getpid(), signum)


def _write_ledger(path):
    from voxark.io.outputs import open_text_output

    with open_text_output(path) as out:
        for key, reason in itertools.chain.from_iterable(_ledger):
            out.write(f"{key} {_on_one_line(reason)}\n")


def _run(program, function, argv):
    """Parse, set up, run; return the exit status. Signals and broken pipes leave as exceptions."""
    positionals, values = command_line.parse(program, argv)
    if values["help"]:
        print(command_line.usage(program))
        return 0
    _set_up_logging(program.name, values["verbose"])
    program.shows_tracebacks = values["verbose"] >= 2
    if values["print-args"]:
        _echo(program.name, argv)
    if not values["allow-pipes"]:
        os.environ["VOXARK_ALLOW_PIPES"] = "0"
    keywords = command_line.arguments(program.keywords, values)
    try:
        status = function(*positionals, **keywords)
        _flush_standard_output()
    except BaseException:
        if values["failed-list"]:
            try:
                _write_ledger(values["failed-list"])
            except VoxarkError as error:
                logger.warning("%s", error)
        raise
    if values["failed-list"]:
        _write_ledger(values["failed-list"])
    return 0 if status is None else int(status)


def _flush_standard_output():
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise VoxarkError(f"standard output: cannot be written: {error.strerror or error}") from None


def _explain(error):
    """The one line that says what an exception means."""
    if isinstance(error, VoxarkError):
        return str(error)
    if isinstance(error, OSError):
        reason = error.strerror or str(error)
        return reason if error.filename is None else f"{error.filename}: {reason}"
    if isinstance(error, MemoryError):
        return f"out of memory: {error}"
    return f"internal error: {type(error).__name__}: {error} (--verbose=2 shows where)"  # a defect of voxark


def program(function=None, *, echo=True):
    """Decorate a program's ``main`` function: calling it without arguments runs it on ``sys.argv``.

    The function returns an exit status (None counts as 0). ``@program(echo=False)`` is for a program whose
    output people or a shell read: it prints its command line with --print-args only.
    """
    if function is None:
        return functools.partial(program, echo=echo)

    @functools.wraps(function)
    def main():
        _catch_signals()
        argv = sys.argv[1:]
        declared = command_line.declare(function)
        declared.options["print-args"].default = echo
        _set_up_logging(declared.name, 0)
        status = 1
        try:
            status = _run(declared, function, argv)
        except UsageError as error:
            _say(command_line.usage(declared))
            _echo(declared.name, argv)
            logger.error("%s", error)
        except BrokenPipeError:
            _die_by(signal.SIGPIPE)
        except (KeyboardInterrupt, Stopped) as error:
            stop = signal.Signals(error.args[0]) if isinstance(error, Stopped) else signal.SIGINT
            logger.error("stopped by %s; unfinished outputs are removed", stop.name)
            _die_by(stop)
        except Exception as error:
            logger.error("%s", _explain(error), exc_info=declared.shows_tracebacks)
        _leave(status)

    return main


def declaration(path):
    """The command_line.Program that a program of bin/, the file ``path``, declares; it is not run."""
    name = os.path.basename(path)
    module = types.ModuleType(f"program {name}")
    sys.modules[module.__name__] = module  # where the docstring of main's module is looked up
    with open(path, encoding="utf-8") as source:
        exec(compile(source.read(), path, "exec"), vars(module))  # not __main__: it ends with its definitions
    declared = command_line.declare(inspect.unwrap(module.main))
    declared.name = name
    return declared


def _leave(status):
    """Exit at once: the interpreter's tear-down costs time and can only add noise after the last flush."""
    unfinished = _remove_unfinished()
    if unfinished and status == 0:
        logger.error("internal error: outputs were never finished: %s", ", ".join(unfinished))
        status = 1
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        _die_by(signal.SIGPIPE)
    except OSError as error:
        if status == 0:
            logger.error("standard output: cannot be written: %s", error.strerror or error)
        status = status or 1
    try:
        sys.stderr.flush()
    except OSError:
        pass
    os._exit(status)
