"""What the text filters of utils/ share: they read lines as bytes, stream, and name file and line in every
error."""

import signal
import sys


def parse_lines(path="-", with_line=False):
    """Yield (where, fields) or (where, fields, line) for each line of a file or of standard input ("-")."""
    name = "(standard input)" if path == "-" else path
    if path == "-" and sys.stdin.isatty():
        print("Waiting for standard input.", file=sys.stderr)
    with sys.stdin.buffer if path == "-" else open(path, "rb") as lines:
        for number, line in enumerate(lines, 1):
            where = f"{name}:{number}"
            words = line.split()
            if not words:
                raise ValueError(f"{where}: blank line")
            if b"\r" in line:
                raise ValueError(f"{where}: carriage return (Windows line end); fix_data_dir.sh mends it")
            yield (
                (where, words, line if line.endswith(b"\n") else line + b"\n")
                if with_line
                else (where, words)
            )


def _arguments(argv, flags, numbers):
    """Split a command line into positional arguments and keywords; raises ValueError."""
    words, positionals, keywords = list(argv), [], {}
    while words:
        word = words.pop(0)
        if word in flags:
            keywords[flags[word]] = True
        elif word in numbers:
            value = words.pop(0) if words else ""
            if not value.isdigit() or int(value) < 1:
                raise ValueError(f"{word} expects a number above zero, not '{value}'")
            keywords[numbers[word]] = int(value)
        elif word.startswith("-") and word != "-":
            raise ValueError(f"unknown option {word}")
        else:
            positionals.append(word)
    return positionals, keywords


def run(usage, convert, at_least=0, at_most=1, flags=None, numbers=None):
    """Run a filter on the command line's arguments and exit: 0, or 1 with one line that says why."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if {"--help", "-h"} & set(sys.argv[1:]):
        print(usage.strip())
        sys.exit(0)
    try:
        positionals, keywords = _arguments(sys.argv[1:], flags or {}, numbers or {})
        if not at_least <= len(positionals) <= at_most:
            print(usage.strip(), file=sys.stderr)
            raise ValueError(f"{len(positionals)} arguments given")
        for line in convert(*(positionals or ["-"]), **keywords):
            sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
    except ValueError as error:
        sys.exit(f"{sys.argv[0].rpartition('/')[2]}: {error}")
    except OSError as error:
        sys.exit(f"{sys.argv[0].rpartition('/')[2]}: {error.filename or 'standard output'}: {error.strerror}")
