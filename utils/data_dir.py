#!/usr/bin/env python3
"""Data-directory tools: the work of validate_data_dir.sh, fix_data_dir.sh, copy_data_dir.sh, combine_data.sh,
subset_data_dir.sh and split_data.sh, which call this program with the name of the job."""

import argparse
import fcntl
import os
import shutil
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from voxark import datadir, datadir_edit  # noqa: E402 - found beside utils/, with or without path.sh
from voxark.datadir_check import check  # noqa: E402
from voxark.errors import VoxarkError  # noqa: E402

MOST_PROBLEMS = 20  # printed by validate_data_dir.sh


def number_above_zero(text):
    """Argument type: a number of utterances or parts."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number above zero")
    return int(text)


def true_or_false(text):
    """Argument type: true or false, in these words."""
    if text not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"'{text}' is neither true nor false")
    return text == "true"


def warn(parser, text):
    """Print a message of the tool to standard error."""
    print(f"{parser.prog}: {text}", file=sys.stderr)


def validate(parser):
    """Check a data directory: every line of its files, their order, and that they agree with each other.

    The options --no-... say what may be absent; it is checked where it is there. Exit status 1 and a list of
    the problems (file:line: text) if anything is wrong.
    """
    parser.add_argument("--no-feats", action="store_true", help="feats.scp may be absent")
    parser.add_argument("--no-text", action="store_true", help="text may be absent")
    parser.add_argument("--no-wav", action="store_true", help="wav.scp may be absent")
    parser.add_argument(
        "--no-spk-sort", action="store_true", help="utt2spk need not be in the order of speakers"
    )
    parser.add_argument(
        "--only", metavar="'FILE ...'", help="look at these files only, besides utt2spk and spk2utt"
    )
    parser.add_argument(
        "--partial", action="store_true", help="files may lack utterances, as those that a step dropped"
    )
    parser.add_argument("data", metavar="<data-dir>")
    args = parser.parse_args()
    only = None if args.only is None else args.only.split()
    problems = check(
        args.data,
        not args.no_feats,
        not args.no_text,
        not args.no_wav,
        not args.no_spk_sort,
        only,
        args.partial,
    )
    for problem in problems[:MOST_PROBLEMS]:
        warn(parser, problem)
    if len(problems) > MOST_PROBLEMS:
        warn(parser, f"... and {len(problems) - MOST_PROBLEMS} more problems")
    if problems:
        return 1
    print(f"{parser.prog}: Successfully validated data-directory {args.data}")
    return 0


def fix(parser):
    """Put a data directory in order: sort its files, mend line ends, and keep the utterances that all files
    have.

    The files as they were are kept in <data-dir>/.backup, and <data-dir>/dropped.fix names each utterance
    that went and why. What cannot be mended safely (a malformed line, two different lines of a key, text that
    is not UTF-8) is an error that names it.
    """
    parser.add_argument("data", metavar="<data-dir>")
    args = parser.parse_args()
    before = datadir_edit.Repair(args.data)
    changed = before.write()
    for change in before.changes:
        print(f"{parser.prog}: {change}")
    ledger = os.path.join(args.data, "dropped.fix")
    if before.dropped:
        old = datadir.read_table(ledger, datadir.parse_text) if os.path.exists(ledger) else {}
        rows = sorted({**old, **before.dropped}.items())
        datadir.write_lines(ledger, (f"{key} {why}" for key, why in rows))
    total, kept = len(before.data.utt2spk), len(before.fixed.utt2spk)
    print(
        f"{parser.prog}: kept {'all ' if kept == total else ''}{kept} utterances"
        + ("." if kept == total else f" out of {total}; {ledger} names the others.")
    )
    if changed:
        print(f"{parser.prog}: changed {' '.join(changed)}; old files are kept in {args.data}/.backup")
    return 0


def copy(parser):
    """Copy a data directory, and possibly give its utterances and speakers a prefix or a suffix.

    Paths stay as they are, unless --wav-base makes the relative ones in wav.scp absolute. A copy is not
    validated.
    """
    for which, name in (("spk", "speakers"), ("utt", "utterances")):
        for where in ("prefix", "suffix"):
            parser.add_argument(
                f"--{which}-{where}", default="", metavar="X", help=f"{where} for the names of {name}"
            )
    parser.add_argument(
        "--wav-base", metavar="DIR", help="folder that the relative paths of wav.scp start from"
    )
    parser.add_argument("source", metavar="<src-dir>")
    parser.add_argument("target", metavar="<dest-dir>")
    args = parser.parse_args()
    refuse_same(args.target, [args.source])
    data = datadir_edit.load(args.source)
    data = data.rename(
        lambda key: f"{args.utt_prefix}{key}{args.utt_suffix}",
        lambda key: f"{args.spk_prefix}{key}{args.spk_suffix}",
    )
    if args.wav_base is not None:
        base = os.path.abspath(args.wav_base)
        wavs = data.tables.get("wav.scp", {})
        data.tables["wav.scp"] = {
            key: rest if rest.endswith("|") or rest == "-" else os.path.join(base, rest)
            for key, rest in wavs.items()
        }
    data.write(args.target)
    print(f"{parser.prog}: copied data from {args.source} to {args.target}")
    return 0


def combine(parser):
    """Merge data directories into a new one, and put it in order as fix_data_dir.sh does.

    Files that only some of the sources have are left out, with a message; labels (utt2..., spk2..., ctm,
    trials) are taken from where they are.
    """
    parser.add_argument(
        "--skip-fix",
        type=true_or_false,
        default=False,
        metavar="true|false",
        help="leave out the repair at the end (default: false)",
    )
    parser.add_argument(
        "--extra-files", metavar="'FILE ...'", help="accepted for Kaldi's sake: all known files are merged"
    )
    parser.add_argument("target", metavar="<dest-dir>")
    parser.add_argument("sources", metavar="<src-dir>", nargs="+")
    args = parser.parse_args()
    refuse_same(args.target, args.sources)
    merged, left_out = datadir_edit.merge([datadir_edit.load(source) for source in args.sources])
    for name in left_out:
        print(
            f"{parser.prog}: not combining {name}: "
            + (
                "a speaker of several directories needs new statistics"
                if name == "cmvn.scp"
                else "it is not in all directories"
            )
        )
    merged.write(args.target)
    print(f"{parser.prog}: combined {len(merged.utt2spk)} utterances of {len(args.sources)} directories")
    if not args.skip_fix:
        repair = datadir_edit.Repair(args.target)
        repair.write()
        for key, why in repair.dropped.items():
            warn(parser, f"dropped {key}: {why}")
    return 0


def subset(parser):
    """Make a data directory of a part of the utterances: <num-utt> of them, or those that a list names.

    By default they are drawn at random, by --srand and their names alone. Give at most one of the other
    options.
    """
    parser.usage = (
        f"{parser.prog} [--first|--last|--shortest|--speakers|--per-spk] [--srand N] "
        "<src-dir> <num-utt> <dest-dir>\n"
        f"   or: {parser.prog} --utt-list|--spk-list <file> <src-dir> <dest-dir>"
    )
    how = parser.add_mutually_exclusive_group()
    for name, text in (
        ("first", "the first <num-utt>"),
        ("last", "the last <num-utt>"),
        ("shortest", "the shortest, by utt2num_frames, utt2dur or segments"),
        ("speakers", "whole speakers drawn at random, until there are <num-utt>"),
        ("per-spk", "<num-utt> of each speaker, drawn at random, or all that there are"),
    ):
        how.add_argument(f"--{name}", dest="how", action="store_const", const=name, help=text)
    how.add_argument(
        "--utt-list", metavar="FILE", help="the utterances whose names begin the lines of a file"
    )
    how.add_argument("--spk-list", metavar="FILE", help="the speakers whose names begin the lines of a file")
    parser.add_argument("--srand", type=int, default=0, help="seed of the random choice (default: 0)")
    parser.add_argument("words", metavar="<argument>", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_intermixed_args()
    wanted = args.utt_list or args.spk_list
    if len(args.words) != (2 if wanted else 3):
        parser.error(f"{len(args.words)} arguments given: {' '.join(args.words)}")
    source, target = args.words[0], args.words[-1]
    refuse_same(target, [source])
    data = datadir_edit.load(source)
    if wanted:
        listed = {key for _, key, _ in datadir.read_rows(wanted)}
        keep = [key for key, speaker in data.utt2spk.items() if (key if args.utt_list else speaker) in listed]
    else:
        try:
            keep = datadir_edit.select(
                data, args.how or "random", number_above_zero(args.words[1]), args.srand
            )
        except argparse.ArgumentTypeError as error:
            parser.error(str(error))
    if not keep:
        raise VoxarkError(f"{wanted}: names none of the utterances or speakers of {source}")
    data.filter(keep).write(target)
    print(f"{parser.prog}: reducing #utt from {len(data.utt2spk)} to {len(keep)}")
    return 0


def refuse_same(target, sources):
    """A tool that reads one directory and writes another cannot be given the same twice."""
    for source in sources:
        if os.path.realpath(source) == os.path.realpath(target):
            raise VoxarkError(f"{target}: the source and the destination are the same directory")


def split_stamp(data):
    """What a split was made from: name, size and time of each file; equal stamps mean that it is up to
    date."""
    rows = []
    for name in datadir_edit.file_names(data):
        status = os.stat(os.path.join(data, name))
        rows.append(f"{name} {status.st_size} {status.st_mtime_ns}")
    return rows


def split(parser):
    """Divide a data directory into <data-dir>/split<n>/1 ... <n> (split<n>utt with --per-utt), of nearly
    equal size.

    The utterances of a speaker stay together, unless --per-utt. A split that is up to date is left alone.
    """
    parser.add_argument(
        "--per-utt", action="store_true", help="divide by utterance, without regard to speakers"
    )
    parser.add_argument("data", metavar="<data-dir>")
    parser.add_argument("number", metavar="<num-to-split>", type=number_above_zero)
    args = parser.parse_args()
    target = os.path.join(args.data, f"split{args.number}{'utt' if args.per_utt else ''}")
    stamp = os.path.join(target, ".stamp")
    stamped = split_stamp(args.data)
    with open(
        os.path.join(args.data, ".split_lock"), "w"
    ) as lock:  # two steps may want the same split at once
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            with open(stamp, encoding="utf-8") as rows:
                if rows.read().splitlines() == stamped:
                    return 0
        except FileNotFoundError:
            pass
        data = datadir_edit.load(args.data)
        data.lists.clear()  # trials and labels are of no use to the jobs, as in Kaldi
        parts = datadir_edit.split(data, args.number, args.per_utt)
        temporary = f"{target}.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        for number, part in enumerate(parts, 1):
            data.filter(part).write(os.path.join(temporary, str(number)), keep_empty=True)
        datadir.write_lines(os.path.join(temporary, ".stamp"), stamped)
        shutil.rmtree(target, ignore_errors=True)
        os.rename(temporary, target)
    return 0


JOBS = {
    "validate": (validate, "validate_data_dir.sh", "--no-text --no-feats data/train"),
    "fix": (fix, "fix_data_dir.sh", "data/train"),
    "copy": (copy, "copy_data_dir.sh", "--spk-prefix=a- --utt-prefix=a- data/train data/train_a"),
    "combine": (combine, "combine_data.sh", "data/all data/train data/test"),
    "subset": (subset, "subset_data_dir.sh", "--per-spk data/train 10 data/train_10"),
    "split": (split, "split_data.sh", "data/train 4"),
}


def main():
    """Run the job that the first argument names; return the exit status."""
    if len(sys.argv) < 2 or sys.argv[1] not in JOBS:
        print(f"usage: data_dir.py {'|'.join(JOBS)} ...", file=sys.stderr)
        return 1
    job, name, example = JOBS[sys.argv.pop(1)]
    text = "\n".join(line.strip() for line in job.__doc__.splitlines()).strip()
    parser = argparse.ArgumentParser(
        prog=name,
        description=text,
        epilog=f"e.g.: {name} {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    try:
        return job(parser)
    except VoxarkError as error:
        warn(parser, f"ERROR {error}")
    except OSError as error:
        warn(parser, f"ERROR {error.filename}: {error.strerror}")
    except SystemExit as done:
        return 1 if done.code else 0  # argparse's 2 for wrong usage is 1 here, as everywhere in Kaldi
    return 1


if __name__ == "__main__":
    sys.exit(main())
