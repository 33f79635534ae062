#!/usr/bin/env python3
"""Copy training and test data directories and a trial list into one place, with checked and absolute paths.

Writes <out>/train, <out>/test, <out>/trials and <out>/enroll_map (`<model-id> <utterance>...`, identity if
the trials enrol single utterances). Each relative path in wav.scp is looked for in the current folder, in the
data directory, and in the folder that the data directory lies in. Commands (`... |`) stay as they are.

Usage: import_data.py [options] <train-dir> <test-dir> <trials> <out-dir>
e.g.: import_data.py corpora/train corpora/test corpora/test/trials egs/mini/data/mine
See also: egs/mini/run.sh, utils/validate_data_dir.sh
"""

from voxark import cli  # first: it sets the BLAS threads before numpy loads

import logging
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Annotated

from voxark.errors import VoxarkError

logger = logging.getLogger("voxark.mini")

LABELS_OF_UTTS = ("text", "utt2dur", "utt2noise", "utt2mic", "utt2room", "utt2snr", "phones.ctm", "words.ctm")
LABELS_OF_SPKS = ("spk2gender", "spk2accent", "spk2dialect", "spk2age")


def read_table(path, required=True):
    """Rows (key, rest of the line) of a text table; VoxarkError names file and line of what is wrong."""
    if not path.is_file():
        if required:
            raise VoxarkError(f"{path}: no such file")
        return []
    rows, seen = [], set()
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise VoxarkError(f"{path}: cannot be read as text: {error}") from None
    for number, line in enumerate(lines, 1):
        key, _, rest = line.strip().partition(" ")
        if not key or not rest.strip():
            raise VoxarkError(f"{path}:{number}: expected `key value`, found '{line[:80]}'")
        if key in seen:
            raise VoxarkError(f"{path}:{number}: '{key}' is there twice")
        seen.add(key)
        rows.append((key, rest.strip()))
    if required and not rows:
        raise VoxarkError(f"{path}: is empty")
    return rows


def find_audio(key, source, data_dir):
    """The absolute path of a wav.scp entry, and the folder it was relative to (None: absolute, command)."""
    if source.endswith("|") or Path(source).is_absolute():
        return source, None
    for folder in (Path.cwd(), data_dir, data_dir.parent):
        if (folder / source).is_file():
            return str((folder / source).resolve()), folder
    tried = ", ".join(str(folder) for folder in (Path.cwd(), data_dir, data_dir.parent))
    raise VoxarkError(f"{data_dir / 'wav.scp'}: '{key}': no file {source} in any of {tried}")


def import_audio(data_dir, out):
    """Write out/wav.scp with absolute paths; log where relative ones were found."""
    resolved, places = [], defaultdict(int)
    for key, source in read_table(data_dir / "wav.scp"):
        path, folder = find_audio(key, source, data_dir)
        resolved.append((key, path))
        if folder is not None:
            places[folder] += 1
    for folder, count in places.items():
        logger.info("%s: %d relative paths, found in %s", data_dir / "wav.scp", count, folder)
    write_table(out / "wav.scp", resolved)
    return {key for key, _ in resolved}


def write_table(path, rows):
    """Write rows sorted by key as LC_ALL=C sorts."""
    rows = sorted(rows, key=lambda row: row[0].encode())
    path.write_text("".join(f"{key} {value}\n" for key, value in rows), encoding="utf-8")


def copy_labels(path, out, keys):
    """Copy the lines of the keys, sorted by key and in order within one; nothing if there is no file.

    The recipe needs no labels, so a file that lacks some of the keys is left out with a warning (times of
    phones and words excepted: an utterance may have none).
    """
    if not path.is_file():
        return
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    kept = [line for line in lines if line.split(maxsplit=1)[:1] and line.split(maxsplit=1)[0] in keys]
    kept.sort(key=lambda line: line.split(maxsplit=1)[0].encode())
    num_missing = len(set(keys) - {line.split(maxsplit=1)[0] for line in kept})
    if num_missing and path.suffix != ".ctm":
        logger.warning("%s lacks %d of %d keys: left out", path, num_missing, len(keys))
        return
    out.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")


def import_data_dir(data_dir, out):
    """Copy one data directory; return {utterance: speaker}."""
    if not data_dir.is_dir():
        raise VoxarkError(f"{data_dir}: no such data directory")
    out.mkdir(parents=True)
    utts = import_audio(data_dir, out)
    segments = read_table(data_dir / "segments", required=False)
    if segments:
        write_table(out / "segments", segments)
        utts = {key for key, _ in segments}
    spk_of = dict(read_table(data_dir / "utt2spk"))
    unknown = sorted(utts - spk_of.keys())
    if unknown:
        raise VoxarkError(
            f"{data_dir / 'utt2spk'}: {len(unknown)} utterances are missing, the first is '{unknown[0]}'"
        )
    spk_of = {utt: spk_of[utt] for utt in utts}
    write_table(out / "utt2spk", spk_of.items())
    members = defaultdict(list)
    for utt in sorted(utts, key=str.encode):
        members[spk_of[utt]].append(utt)
    write_table(out / "spk2utt", [(spk, " ".join(names)) for spk, names in members.items()])
    for names, keys in ((LABELS_OF_UTTS, utts), (LABELS_OF_SPKS, members)):
        for name in names:
            copy_labels(data_dir / name, out / name, keys)
    if (data_dir / "reco2file_and_channel").is_file():
        shutil.copyfile(data_dir / "reco2file_and_channel", out / "reco2file_and_channel")
    logger.info("%s: %d speakers, %d utterances", data_dir, len(members), len(utts))
    return spk_of


def read_trials(path):
    """The enrolment ids in order, the set of test ids, and the numbers of target and nontarget trials."""
    if not path.is_file():
        raise VoxarkError(f"{path}: no such file")
    models, tests, counts, seen = {}, set(), {"target": 0, "nontarget": 0}, {}
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        words = line.split()
        if len(words) != 3 or words[2] not in counts:
            raise VoxarkError(
                f"{path}:{number}: expected `enroll-id test-id target|nontarget`, found '{line[:80]}'"
            )
        first = seen.setdefault((words[0], words[1]), number)
        if first != number:
            raise VoxarkError(f"{path}:{number}: the trial '{words[0]} {words[1]}' is there twice, first in line {first}")
        models[words[0]] = None
        tests.add(words[1])
        counts[words[2]] += 1
    if not all(counts.values()):
        numbers = " and ".join(f"{count} {name}" for name, count in counts.items())
        raise VoxarkError(f"{path}: {numbers} trials; both are needed")
    return list(models), tests, counts


def import_trials(path, enroll_map, test_utts, out):
    """Check trials and enrolment map against the test utterances, and write both."""
    models, tests, counts = read_trials(path)
    check_known(path, "test id", tests, test_utts, "no utterance of the test directory has it")
    if enroll_map is None:
        hint = "no utterance of the test directory has it; say what models are made of with --enroll-map"
        check_known(path, "enrolment id", models, test_utts, hint)
        sessions = {model: model for model in models}
    else:
        sessions = dict(read_table(enroll_map))
        check_known(path, "enrolment id", models, sessions, f"{enroll_map} does not have it")
        sessions = {model: sessions[model] for model in models}
        used = [utt for utts in sessions.values() for utt in utts.split()]
        check_known(enroll_map, "utterance", used, test_utts, "the test directory does not have it")
    lines = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    text = "".join(" ".join(line.split()) + "\n" for line in lines)  # one blank between words, no CR at the end
    (out / "trials").write_text(text, encoding="utf-8", errors="surrogateescape")
    write_table(out / "enroll_map", sessions.items())
    numbers = ", ".join(f"{count} {name}" for name, count in counts.items())
    logger.info("%s: %d models, %s trials", path, len(models), numbers)


def check_known(path, what, keys, known, hint):
    """Raise VoxarkError naming how many keys are not known, and the first."""
    unknown = [key for key in keys if key not in known]
    if unknown:
        raise VoxarkError(f"{path}: {len(unknown)} unknown: {what} '{min(unknown)}': {hint}")


@cli.program
def main(
    train_dir: str,
    test_dir: str,
    trials: str,
    out_dir: str,
    *,
    enroll_map: Annotated[
        str, "Utterances of each model; default: <test-dir>/enroll.spk2utt where it exists."
    ] = "",
) -> int:
    train, test, out = Path(train_dir).absolute(), Path(test_dir).absolute(), Path(out_dir)
    for name in ("train", "test"):
        shutil.rmtree(out / name, ignore_errors=True)
    spk_of_train = import_data_dir(train, out / "train")
    spk_of_test = import_data_dir(test, out / "test")
    shared = set(spk_of_train.values()) & set(spk_of_test.values())
    if shared:
        logger.warning(
            "%d speakers are in both sets, the first is '%s': error rates will look too good",
            len(shared),
            min(shared),
        )
    given = Path(enroll_map) if enroll_map else test / "enroll.spk2utt"
    import_trials(Path(trials), given if enroll_map or given.is_file() else None, spk_of_test, out)
    counts = cli.Counts("utterances")
    counts.done(len(spk_of_train) + len(spk_of_test))
    return counts.finish()


if __name__ == "__main__":
    main()
