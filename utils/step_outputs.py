#!/usr/bin/env python3
"""The bookkeeping of a step over a data directory: is it done already; and at its end, gather what its jobs
made.

Usage: step_outputs.py is-done [options] <data-dir>
       step_outputs.py collect [options] <data-dir>
step_lib.sh calls it. A step makes one output table in the data directory (feats.scp, vad.scp, cmvn.scp) out
of wav.scp and segments, or out of feats.scp. `collect` merges the jobs' tables into it, names the utterances
without a result and why in <data-dir>/dropped.<what>, fails if they are more than 5 %, and leaves a stamp in
<data-dir>/.done.<what>: a hash of the options and of the configuration, and for each key hashes of what it
was made from and of what was made. `is-done` succeeds if that still holds for every key that is there, so
that taking utterances out of a data directory does not undo the work on the others.
"""

import argparse
import glob
import hashlib
import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from launcher import substitute  # noqa: E402

from voxark import datadir  # noqa: E402 - found beside utils/, with or without path.sh
from voxark.errors import VoxarkError  # noqa: E402

MAX_DROPPED_PERCENT = 5


def read(path):
    """A table as {key: text}; an absent or empty file counts as a table without lines."""
    if not os.path.exists(path) or os.path.getsize(path) == 0:
        return {}
    return datadir.read_table(path, datadir.parse_text)


def digest(text):
    """A short hash of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_state(audio):
    """Size and time of a wav.scp entry that is a plain file, so that a repaired file counts as a new one."""
    try:
        status = os.stat(audio)
    except (OSError, ValueError):
        return ""  # a command or an archive's offset: its text is all that there is to compare
    return f" {status.st_size} {status.st_mtime_ns}"


class Step:
    """A step on a data directory: what its output is made from."""

    def __init__(self, args):
        """``self.inputs``: key of the output to the text that it depends on; ``self.utterances``: key to
        utterances."""
        self.args, self.data, self.recordings = args, args.data, {}
        utt2spk = datadir.read_table(self.path("utt2spk"))
        if args.source == "wav":
            wavs, segments = read(self.path("wav.scp")), read(self.path("segments"))
            if segments:
                self.recordings = {key: datadir.split(text)[0] for key, text in segments.items()}
                source = {
                    key: f"{text} {wavs.get(self.recordings[key], '')}" for key, text in segments.items()
                }
            else:
                source = wavs
            source = {key: text + file_state(wavs.get(self.recordings.get(key, key), "")) for key, text in source.items()}
        else:
            source = read(self.path("feats.scp"))
        source = {key: source[key] for key in utt2spk if key in source}
        if args.by_speaker:
            self.utterances = datadir.invert_utt2spk({key: utt2spk[key] for key in source})
            self.inputs = {
                speaker: "\n".join(f"{key} {source[key]}" for key in sorted(own))
                for speaker, own in self.utterances.items()
            }
        else:
            self.utterances, self.inputs = {key: [key] for key in source}, source

    def path(self, name):
        return os.path.join(self.data, name)

    def fingerprint(self):
        """A hash of the step's options and configuration, and of the making of the features that it reads."""
        texts = [self.args.options]
        for config in self.args.config:
            with open(config, encoding="utf-8", errors="surrogateescape") as file:
                texts.append(file.read())
        if self.args.source == "feats":
            for stamp in sorted(glob.glob(glob.escape(self.data) + "/.done.*")):
                with open(stamp, encoding="utf-8") as file:
                    first = file.readline()
                if first.startswith("feats.scp "):
                    texts.append(first)
        return digest(repr([text.encode("utf-8", "surrogateescape") for text in texts]))

    def stamp_rows(self, output):
        """The lines of the stamp: each key with the hashes of what it comes from and of its line in the
        output."""
        return {
            key: f"{digest(text)} {digest(output[key]) if key in output else '-'}"
            for key, text in self.inputs.items()
        }


def archives_exist(output):
    """True if every archive that a table points into is there."""
    files = {text.rpartition(":")[0] for text in output.values() if text.rpartition(":")[2].isdigit()}
    return all(os.path.exists(file) for file in files)


def is_done(step):
    """True if the step's output is there and was made from the present inputs with the present options."""
    try:
        with open(step.path(f".done.{step.args.what}"), encoding="utf-8") as file:
            name, fingerprint, *_ = file.readline().split(" ")
            stamped = dict(line.rstrip("\n").split(" ", 1) for line in file)
    except (OSError, ValueError):
        return False
    output = read(step.path(step.args.output))
    if name != step.args.output or fingerprint != step.fingerprint() or not output:
        return False
    return all(stamped.get(key) == row for key, row in step.stamp_rows(output).items()) and archives_exist(
        output
    )


def merge(pattern, num_jobs):
    """One table of the tables that the jobs wrote; ``pattern`` has JOB for the number."""
    table = {}
    for number in range(1, num_jobs + 1):
        table.update(read(substitute(pattern, "JOB", number)))
    return table


def reasons(step):
    """{key: why} of the lists of failed keys that the programs of the jobs wrote; the first reason of a key
    counts."""
    found = {}
    for pattern in step.args.failed:
        for number in range(1, step.args.nj + 1):
            path = substitute(pattern, "JOB", number)
            if not os.path.exists(path):
                continue
            with open(path, encoding="utf-8", errors="replace") as lines:
                for line in lines:
                    key, _, why = line.strip().partition(" ")
                    found.setdefault(key, why)
    return found


def find_dropped(step, output):
    """({utterance: why} of those without a result, number of them that nothing explains)."""
    why, dropped, unexplained = reasons(step), {}, 0
    for utterance, recording in step.recordings.items():
        if (
            utterance in why and recording in why
        ):  # all that the utterance's own reason says is that there is none
            why[utterance] = f"recording {recording}: {why[recording]}"
    for key, utterances in step.utterances.items():
        for utterance in utterances:
            if utterance in why and (step.args.by_speaker or key not in output):
                dropped[utterance] = why[utterance]
            elif key not in output:
                dropped[utterance] = why.get(key, "it vanished without a reason; see the logs")
                unexplained += key not in why
    return dropped, unexplained


def collect(step):
    """Merge, write the ledger, judge, write output and stamp; return the exit status."""
    args = step.args
    output = merge(args.tables, args.nj)
    output = {key: output[key] for key in sorted(output) if key in step.inputs}
    dropped, unexplained = find_dropped(step, output)
    ledger, total = step.path(f"dropped.{args.what}"), sum(map(len, step.utterances.values()))
    if args.jobs_failed and unexplained:
        raise VoxarkError(
            f"jobs failed, and {unexplained} of {total} utterances have no result; "
            f"logs are {substitute(args.log, 'JOB', '*')}"
        )
    if args.jobs_failed:
        print(f"{args.name}: going on: all utterances of the failed jobs have a result or a reason")
    if os.path.exists(ledger):
        os.unlink(ledger)
    if dropped:
        datadir.write_lines(ledger, (f"{key} {why}" for key, why in sorted(dropped.items())))
        print(f"{args.name}: {len(dropped)} of {total} utterances dropped, named with the reason in {ledger}")
    if not output or 100 * len(dropped) > MAX_DROPPED_PERCENT * total:
        first = "; the first: " + " ".join(min(dropped.items())) if dropped else ""
        raise VoxarkError(f"more than {MAX_DROPPED_PERCENT} % of the utterances were dropped{first}")
    for pattern, name in args.extra:
        rows = merge(pattern, args.nj)
        datadir.write_lines(step.path(name), (f"{key} {rows[key]}" for key in output if key in rows))
    datadir.write_lines(step.path(args.output), (f"{key} {text}" for key, text in output.items()))
    rows = step.stamp_rows(output)
    # the time is part of the first line, which later steps hash: features made anew undo what was made of
    # them
    datadir.write_lines(
        step.path(f".done.{args.what}"),
        [
            f"{args.output} {step.fingerprint()} {time.time_ns()}",
            *(f"{key} {row}" for key, row in rows.items()),
        ],
    )
    for pattern in args.failed + [pattern for pattern, _ in args.extra]:
        for number in range(1, args.nj + 1):
            if os.path.exists(substitute(pattern, "JOB", number)):
                os.unlink(substitute(pattern, "JOB", number))
    print(
        f"{args.name}: wrote {step.path(args.output)} "
        f"({len(output)} {'speakers' if args.by_speaker else 'utterances'})"
    )
    return 0


def parse():
    """The command line, of step_lib.sh."""
    parser = argparse.ArgumentParser(
        prog="step_outputs.py",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("action", choices=("is-done", "collect"))
    parser.add_argument("--name", required=True, help="the step's name in messages")
    parser.add_argument("--what", required=True, help="what is made: fbank, mfcc, vad, cmvn")
    parser.add_argument("--output", required=True, help="the table that is made, in the data directory")
    parser.add_argument("--source", choices=("wav", "feats"), required=True, help="what it is made from")
    parser.add_argument("--by-speaker", action="store_true", help="the keys of the output are speakers")
    parser.add_argument("--options", default="", help="options of the step that change its output")
    parser.add_argument(
        "--config", action="append", default=[], help="a configuration file that changes its output"
    )
    parser.add_argument("--nj", type=int, default=1, help="number of jobs")
    parser.add_argument("--log", default="", help="the jobs' logs, for messages")
    parser.add_argument("--tables", default="", help="the jobs' tables, with JOB for the number")
    parser.add_argument(
        "--extra", nargs=2, action="append", default=[], help="further tables of the jobs, and their names"
    )
    parser.add_argument("--failed", action="append", default=[], help="the jobs' lists of failed keys")
    parser.add_argument("--jobs-failed", action="store_true", help="the launcher said that jobs failed")
    parser.add_argument("data")
    return parser.parse_args()


def main():
    """Run one action; return the exit status."""
    args = parse()
    try:
        step = Step(args)
        return (0 if is_done(step) else 1) if args.action == "is-done" else collect(step)
    except VoxarkError as error:
        if (
            args.action == "collect"
        ):  # a broken directory is not done; the step's validation says what is broken
            print(f"{args.name}: ERROR {error}", file=sys.stderr)
    except OSError as error:
        print(f"{args.name}: ERROR {error.filename}: {error.strerror}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
